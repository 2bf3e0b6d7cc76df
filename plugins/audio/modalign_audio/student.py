"""A tiny untrained audio tower that learns to hear the oracle world's beeps within a minute."""

from __future__ import annotations

from pathlib import Path

import torch

from modalign.config import EncoderConfig

WIDTH, LAYERS, MELS = 64, 2, 40  #: of a state; layers; bands of frequency
SECONDS, POOL = 1, 2  #: of the window; frames of 20 ms to one embedding

_FIRST, _REST = 2.0, 0.7  #: times one over the root of what a weight adds up: convolutions, and layers behind them


def save_encoder(folder: str | Path, *, seed: int = 0) -> EncoderConfig:
    """Write the tower and its extractor as transformers would; returns what `modalign.load(encoders=...)` takes.

    A small encoder of Whisper with a window of one second. It hears 16 kHz, to which the world's 4 kHz are resampled
    when they are decoded. It knows nothing, so it has to be trained with the model: `freeze=()`.

    seed: of its weights; the caller's random state is untouched.
    """
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    folder = Path(folder)
    extractor = WhisperFeatureExtractor(feature_size=MELS, chunk_length=SECONDS)
    config = WhisperConfig(
        num_mel_bins=MELS,
        d_model=WIDTH,
        encoder_layers=LAYERS,
        encoder_attention_heads=4,
        encoder_ffn_dim=2 * WIDTH,
        max_source_positions=extractor.nb_max_frames // 2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        tower = WhisperEncoder(config)
        for name, weight in tower.named_parameters():  # at the library's 0.02 it hears nothing for long
            if weight.ndim > 1 and "embed_positions" not in name:
                scale = _FIRST if name.startswith("conv") else _REST
                torch.nn.init.normal_(weight, std=scale * weight[0].numel() ** -0.5)
    tower.eval().save_pretrained(folder)
    extractor.save_pretrained(folder)
    return EncoderConfig(path=str(folder), type="audio", options={"pool": POOL})
