"""Further tiny checkpoints: decoders that cannot share a prompt, and processors that write a medium in other ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

from modalign_text.multimodal.testing import (
    MROPE,
    QWEN_MEDIA,
    QWEN_TOKENS,
    TEXT_SIZES,
    VISION_SIZES,
    make_tokenizer,
    qwen_ids,
    token_id,
)

_library: Any = transformers  # its generated signatures name less than its classes take
_Made = tuple[PreTrainedModel, ProcessorMixin]


def _idefics3() -> _Made:
    tokenizer = make_tokenizer(
        {"image": "<image>"},
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )
    config = _library.Idefics3Config(
        vision_config={**VISION_SIZES, "image_size": 32, "patch_size": 8},
        text_config={**TEXT_SIZES, "model_type": "llama"},
        image_token_id=token_id(tokenizer, "<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
    )
    images = _library.Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = _library.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=tokenizer.chat_template)
    return _library.Idefics3ForConditionalGeneration(config), processor


def _internvl() -> _Made:
    tokenizer = make_tokenizer(
        {"image": "<IMG_CONTEXT>", "video": "<video>"},
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = _library.InternVLConfig(
        vision_config={**VISION_SIZES, "image_size": [32, 32], "patch_size": [8, 8]},
        text_config={**TEXT_SIZES, "model_type": "qwen2"},
        image_token_id=token_id(tokenizer, "<IMG_CONTEXT>"),
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    size = {"height": 32, "width": 32}
    processor = _library.InternVLProcessor(
        _library.GotOcr2ImageProcessor(size=size, max_patches=2),
        tokenizer,
        _library.InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=tokenizer.chat_template,
    )
    return _library.InternVLForConditionalGeneration(config), processor


def _qwen3_processor(tokenizer: PreTrainedTokenizerFast) -> ProcessorMixin:
    size = {"shortest_edge": 32 * 32, "longest_edge": 96 * 96}
    return _library.Qwen3VLProcessor(
        image_processor=_library.Qwen2VLImageProcessor(size=size, patch_size=16),
        tokenizer=tokenizer,
        video_processor=_library.Qwen3VLVideoProcessor(size=size, patch_size=16, do_sample_frames=False),
        chat_template=tokenizer.chat_template,
    )


_QWEN3_VISION: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 16,
        "num_position_embeddings": 64,
    }
)


def _qwen3_vl() -> _Made:
    tokenizer = make_tokenizer({name: QWEN_MEDIA[name] for name in ("image", "video")}, **QWEN_TOKENS)
    config = _library.Qwen3VLConfig(
        text_config={**TEXT_SIZES, **MROPE},
        vision_config={**_QWEN3_VISION, "deepstack_visual_indexes": [0]},
        **qwen_ids(tokenizer),
        tie_word_embeddings=False,
    )
    return _library.Qwen3VLForConditionalGeneration(config), _qwen3_processor(tokenizer)


def _qwen3_5() -> _Made:
    tokenizer = make_tokenizer({name: QWEN_MEDIA[name] for name in ("image", "video")}, **QWEN_TOKENS)
    rope = {**MROPE["rope_parameters"], "partial_rotary_factor": 1.0}
    linear = {f"linear_{one}_head_dim": 8 for one in ("key", "value")}
    linear |= {f"linear_num_{one}_heads": 2 for one in ("key", "value")}
    layers = ["linear_attention", "full_attention"]
    config = _library.Qwen3_5Config(
        text_config={**TEXT_SIZES, "rope_parameters": rope, "layer_types": layers, **linear},
        vision_config=dict(_QWEN3_VISION),
        **qwen_ids(tokenizer),
        tie_word_embeddings=False,
    )
    return _library.Qwen3_5ForConditionalGeneration(config), _qwen3_processor(tokenizer)


def _mllama() -> _Made:
    tokenizer = make_tokenizer({"image": "<|image|>"}, image_token="<|image|>")
    tokenizer.add_special_tokens({"bos_token": "<|endoftext|>"})
    sizes = {name: value for name, value in TEXT_SIZES.items() if name != "head_dim"}
    config = _library.MllamaConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
            "max_num_tiles": 2,
            "vision_output_dim": 64,
            "intermediate_layers_indices": [0],
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        },
        text_config={**sizes, "bos_token_id": 259, "num_hidden_layers": 3, "cross_attention_layers": [1]},
        image_token_index=token_id(tokenizer, "<|image|>"),
    )
    images = _library.MllamaImageProcessor(size={"height": 32, "width": 32}, max_image_tiles=2)
    processor = _library.MllamaProcessor(images, tokenizer, chat_template=tokenizer.chat_template)
    model = _library.MllamaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if "cross_attn" in name and "gate" in name:
            parameter.data.fill_(0.5)  # gates start closed, and would hide every picture
    return model, processor


#: how each family is made, by the name transformers gives it
FURTHER: Final[Mapping[str, Callable[[], _Made]]] = MappingProxyType(
    {
        "idefics3": _idefics3,
        "internvl": _internvl,
        "qwen3_vl": _qwen3_vl,
        "qwen3_5": _qwen3_5,
        "mllama": _mllama,
    }
)

#: the media that each reads
READS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "idefics3": ("image",),
        "internvl": ("image", "video"),
        "qwen3_vl": ("image", "video"),
        "qwen3_5": ("image", "video"),
        "mllama": ("image",),
    }
)
