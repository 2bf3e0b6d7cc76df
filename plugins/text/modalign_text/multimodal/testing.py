"""Tiny random checkpoints that read pictures, sounds and clips, each with its processor, made offline in seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

from modalign_text.testing import END, PAD, START, TEXT, WINDOW, byte_tokenizer

VOCABULARY: Final = 320

_library: Any = transformers  # its generated signatures name less than its classes take

#: ChatML, with whatever the family writes for a medium
_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ media[part['type']] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_Sizes = Mapping[str, Any]  # keyword arguments of configs, each of its own type
TEXT_SIZES: Final[_Sizes] = MappingProxyType(
    {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "pad_token_id": 256,
        "bos_token_id": None,
        "eos_token_id": 258,
        "tie_word_embeddings": False,
    }
)
VISION_SIZES: Final[_Sizes] = MappingProxyType(
    {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
)
_QWEN_SIZE: Final[_Sizes] = MappingProxyType({"shortest_edge": 28 * 28, "longest_edge": 84 * 84})
MROPE: Final[_Sizes] = MappingProxyType(
    {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
)


def tiny_multimodal(folder: str | Path, family: str = "llava", *, seed: int = 0, scale: float = 1.0) -> Path:
    """Save a tiny random checkpoint of one family and its processor; returns the folder, ready for `modalign.load`.

    family: a key of `MULTIMODAL`, of `further.FURTHER`, or of `native.testing.NATIVE`.
    seed: of its weights; the caller's random state is untouched.
    scale: multiplies the matrices, so that what each token sees shows in the logits (4 for tests of attention).
    """
    folder = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        model, processor = (MULTIMODAL[family] if family in MULTIMODAL else _further(family))()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    if not parameter.any():  # a projector that starts at zero would hide every medium
                        nn.init.normal_(parameter, std=0.02)
                    parameter.mul_(scale)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _further(family: str) -> Callable[[], _Made]:
    from modalign_text.multimodal.further import FURTHER
    from modalign_text.multimodal.native.testing import NATIVE

    return {**FURTHER, **NATIVE}[family]


def make_tokenizer(media: Mapping[str, str], **named: str) -> PreTrainedTokenizerFast:
    """The bytes and a family's tokens, and a template that says for each modality what the family writes."""
    tokens = list(dict.fromkeys((PAD, START, END, TEXT, *named.values())))
    template = f"{{% set media = {dict(media)!r} %}}{_TEMPLATE}"
    return byte_tokenizer(
        tokens, chat_template=template, extra_special_tokens={"start_token": START, "text_token": TEXT, **named}
    )


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of a token the tokenizer has."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


_Made = tuple[PreTrainedModel, ProcessorMixin]


def _llava() -> _Made:
    tokenizer = make_tokenizer({"image": "<image>"}, image_token="<image>")
    vision = _library.CLIPVisionConfig(**VISION_SIZES, image_size=32, patch_size=8)
    config = _library.LlavaConfig(
        vision_config=vision,
        text_config=_library.AutoConfig.for_model("llama", **TEXT_SIZES),
        image_token_id=token_id(tokenizer, "<image>"),
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    images = _library.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = _library.LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    return _library.LlavaForConditionalGeneration(config), processor


def _gemma3() -> _Made:
    tokenizer = make_tokenizer(
        {"image": "<start_of_image>"},
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    text = _library.Gemma3TextConfig(
        **{**TEXT_SIZES, "num_key_value_heads": 2},
        sliding_window=WINDOW,
        query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention"],
    )
    vision = _library.SiglipVisionConfig(**VISION_SIZES, image_size=32, patch_size=8)
    config = _library.Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_id=token_id(tokenizer, "<image_soft_token>"),
        boi_token_index=token_id(tokenizer, "<start_of_image>"),
        eoi_token_index=token_id(tokenizer, "<end_of_image>"),
        tie_word_embeddings=False,
    )
    images = _library.Gemma3ImageProcessor(size={"height": 32, "width": 32})
    processor = _library.Gemma3Processor(
        image_processor=images, tokenizer=tokenizer, image_seq_length=4, chat_template=tokenizer.chat_template
    )
    return _library.Gemma3ForConditionalGeneration(config), processor


def _smolvlm() -> _Made:
    tokenizer = make_tokenizer(
        {"image": "<image>", "video": "<video>"},
        image_token="<image>",
        video_token="<video>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )
    config = _library.SmolVLMConfig(
        vision_config={**VISION_SIZES, "image_size": 32, "patch_size": 8},
        text_config={**TEXT_SIZES, "model_type": "llama"},
        image_token_id=token_id(tokenizer, "<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
    )
    edges = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    images = _library.SmolVLMImageProcessor(**edges)
    videos = _library.SmolVLMVideoProcessor(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 32}, num_frames=4, fps=1, do_sample_frames=False
    )
    processor = _library.SmolVLMProcessor(
        images, tokenizer, videos, image_seq_len=4, chat_template=tokenizer.chat_template
    )
    return _library.SmolVLMForConditionalGeneration(config), processor


QWEN_MEDIA: Final = MappingProxyType(
    {
        "image": "<|vision_start|><|image_pad|><|vision_end|>",
        "video": "<|vision_start|><|video_pad|><|vision_end|>",
        "audio": "<|audio_bos|><|AUDIO|><|audio_eos|>",
    }
)
QWEN_TOKENS: Final = MappingProxyType(
    {
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
        "audio_token": "<|AUDIO|>",
    }
)


def qwen_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """What a Qwen config says of its tokens for pictures and clips."""
    return {
        "image_token_id": token_id(tokenizer, "<|image_pad|>"),
        "video_token_id": token_id(tokenizer, "<|video_pad|>"),
        "vision_start_token_id": token_id(tokenizer, "<|vision_start|>"),
        "vision_end_token_id": token_id(tokenizer, "<|vision_end|>"),
    }


def _qwen_processors() -> tuple[object, object]:
    images = _library.Qwen2VLImageProcessor(size=dict(_QWEN_SIZE))
    videos = _library.Qwen2VLVideoProcessor(size=dict(_QWEN_SIZE), do_sample_frames=False)
    return images, videos


def _qwen2_5_vl() -> _Made:
    tokenizer = make_tokenizer({name: QWEN_MEDIA[name] for name in ("image", "video")}, **QWEN_TOKENS)
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "fullatt_block_indexes": [1],
        "window_size": 56,
    }
    config = _library.Qwen2_5_VLConfig(
        text_config={**TEXT_SIZES, **MROPE}, vision_config=vision, **qwen_ids(tokenizer), tie_word_embeddings=False
    )
    images, videos = _qwen_processors()
    processor = _library.Qwen2_5_VLProcessor(
        image_processor=images, tokenizer=tokenizer, video_processor=videos, chat_template=tokenizer.chat_template
    )
    return _library.Qwen2_5_VLForConditionalGeneration(config), processor


def _whisper_extractor(mels: int, window: int) -> object:
    return _library.WhisperFeatureExtractor(
        feature_size=mels, n_fft=400, hop_length=160, chunk_length=window, return_attention_mask=True
    )


def _qwen2_audio() -> _Made:
    tokenizer = make_tokenizer({"audio": QWEN_MEDIA["audio"]}, **QWEN_TOKENS)
    audio = {
        "num_mel_bins": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "d_model": 32,
        "max_source_positions": 100,
    }
    config = _library.Qwen2AudioConfig(
        audio_config={**audio, "model_type": "qwen2_audio_encoder"},
        text_config={**TEXT_SIZES, "model_type": "qwen2"},
        audio_token_id=token_id(tokenizer, "<|AUDIO|>"),
        tie_word_embeddings=False,
    )
    processor = _library.Qwen2AudioProcessor(
        feature_extractor=_whisper_extractor(16, 2), tokenizer=tokenizer, chat_template=tokenizer.chat_template
    )
    return _library.Qwen2AudioForConditionalGeneration(config), processor


def _omni_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        **qwen_ids(tokenizer),
        "audio_token_id": token_id(tokenizer, "<|AUDIO|>"),
        "audio_start_token_id": token_id(tokenizer, "<|audio_bos|>"),
        "audio_end_token_id": token_id(tokenizer, "<|audio_eos|>"),
    }


def _qwen2_5_omni() -> _Made:
    tokenizer = make_tokenizer(QWEN_MEDIA, **QWEN_TOKENS)
    audio = {
        "num_mel_bins": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "d_model": 32,
        "max_source_positions": 100,
        "n_window": 25,
        "output_dim": 32,
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "fullatt_block_indexes": [1],
        "window_size": 56,
    }
    config = _library.Qwen2_5OmniThinkerConfig(
        audio_config=audio,
        vision_config=vision,
        text_config={**TEXT_SIZES, **MROPE},
        **_omni_ids(tokenizer),
        tie_word_embeddings=False,
    )
    images, videos = _qwen_processors()
    processor = _library.Qwen2_5OmniProcessor(
        image_processor=images,
        video_processor=videos,
        feature_extractor=_whisper_extractor(16, 2),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return _library.Qwen2_5OmniThinkerForConditionalGeneration(config), processor


def _qwen3_omni() -> _Made:
    tokenizer = make_tokenizer(QWEN_MEDIA, **QWEN_TOKENS)
    audio = {
        "num_mel_bins": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "d_model": 32,
        "max_source_positions": 100,
        "n_window": 50,
        "output_dim": 32,
        "downsample_hidden_size": 16,
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 16,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    text = {**TEXT_SIZES, **MROPE, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    config = _library.Qwen3OmniMoeThinkerConfig(
        audio_config=audio, vision_config=vision, text_config=text, **_omni_ids(tokenizer), tie_word_embeddings=False
    )
    size = {"shortest_edge": 32 * 32, "longest_edge": 96 * 96}
    images = _library.Qwen2VLImageProcessor(size=size, patch_size=16)
    videos = _library.Qwen2VLVideoProcessor(size=size, patch_size=16, do_sample_frames=False)
    processor = _library.Qwen3OmniMoeProcessor(
        image_processor=images,
        video_processor=videos,
        feature_extractor=_whisper_extractor(16, 2),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return _library.Qwen3OmniMoeThinkerForConditionalGeneration(config), processor


#: how each family is made, by the name transformers gives it
MULTIMODAL: Final[Mapping[str, Callable[[], _Made]]] = MappingProxyType(
    {
        "llava": _llava,
        "gemma3": _gemma3,
        "smolvlm": _smolvlm,
        "qwen2_5_vl": _qwen2_5_vl,
        "qwen2_audio": _qwen2_audio,
        "qwen2_5_omni_thinker": _qwen2_5_omni,
        "qwen3_omni_moe_thinker": _qwen3_omni,
    }
)
