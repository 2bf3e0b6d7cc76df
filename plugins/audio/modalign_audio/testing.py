"""Public test doubles: tiny random audio towers with their feature extractors, made offline in a moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    AutoConfig,
    AutoModel,
    AutoModelForCTC,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    PreTrainedModel,
    SequenceFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from modalign.testing.encoder_laws import EncoderProbe

Made = tuple[PreTrainedModel, SequenceFeatureExtractor]


def tiny_audio(folder: str | Path, family: str = "whisper", *, seed: int = 0) -> Path:
    """Save a tiny random checkpoint and its feature extractor; returns the folder, for `AudioEncoder.load`.

    family: a key of `FAMILIES`. Whisper and CLAP are whole checkpoints of two parts, wav2vec 2.0 one with a head.
    seed: of the weights; the caller's random state is untouched.
    """
    folder = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        model, extractor = FAMILIES[family]()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    model.eval().save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def probe(folder: Path) -> EncoderProbe:
    """A tower without a window to try the encoder on, with two choices of its states."""
    return EncoderProbe(folder=tiny_audio(folder, "wav2vec2"), options=({}, {"layer": 1, "pool": 2}))


def _whisper() -> Made:
    """A window of 2 seconds at 16 kHz, 100 frames of 32."""
    config = WhisperConfig(
        vocab_size=64,
        num_mel_bins=16,
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        max_source_positions=100,
        max_target_positions=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    return WhisperForConditionalGeneration(config), WhisperFeatureExtractor(feature_size=16, chunk_length=2)


def _clap() -> Made:
    """A window of 1 second at 8 kHz, 32 frames of 32."""
    audio = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "window_size": 4,
        "hidden_size": 32,
        "projection_dim": 16,
        "enable_fusion": True,
        "aff_block_r": 2,
    }
    text = {
        "vocab_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "projection_dim": 16,
    }
    extractor = ClapFeatureExtractor(
        feature_size=16, sampling_rate=8000, hop_length=80, max_length_s=1, fft_window_size=512, frequency_max=4000
    )
    return ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=16)), extractor


def _ast() -> Made:
    """A window of 1 second at 16 kHz, 12 frames of 32."""
    config = ASTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        patch_size=8,
        frequency_stride=8,
        time_stride=8,
        max_length=100,
        num_mel_bins=16,
    )
    return ASTModel(config), ASTFeatureExtractor(num_mel_bins=16, max_length=100)


_WAVES: Mapping[str, object] = MappingProxyType(
    {
        "vocab_size": 32,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": (16, 16, 16),
        "conv_kernel": (10, 3, 2),
        "conv_stride": (5, 4, 4),
        "num_feat_extract_layers": 3,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    }
)


def _waves(kind: str, library: type[AutoModel | AutoModelForCTC]) -> Callable[[], Made]:
    """Any length at 16 kHz, a frame of 32 for each 80 samples."""
    return lambda: (library.from_config(AutoConfig.for_model(kind, **_WAVES)), Wav2Vec2FeatureExtractor())


#: By name, what makes a model and its extractor.
FAMILIES: Mapping[str, Callable[[], Made]] = MappingProxyType(
    {
        "whisper": _whisper,
        "clap": _clap,
        "ast": _ast,
        "wav2vec2": _waves("wav2vec2", AutoModelForCTC),
        "hubert": _waves("hubert", AutoModel),
        "wavlm": _waves("wavlm", AutoModel),
    }
)
