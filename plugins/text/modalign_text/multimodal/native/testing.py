"""Tiny random checkpoints that read and draw pictures, each with its processor, made offline in seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import transformers
from transformers import PreTrainedModel, ProcessorMixin

from modalign_text.multimodal.testing import TEXT_SIZES, VISION_SIZES, make_tokenizer, token_id
from modalign_text.testing import TEXT

CODES: Final = 32  #: of a tiny picture's vocabulary

_library: Any = transformers  # its generated signatures name less than its classes take
_Made = tuple[PreTrainedModel, ProcessorMixin]

#: of a VQ model whose codes stand for 8 by 8 pixels each
_VQ: Final[Mapping[str, Any]] = MappingProxyType(
    {"base_channels": 32, "channel_multiplier": [1, 1, 1, 2], "num_res_blocks": 1, "latent_channels": 32}
)


def _janus() -> _Made:
    image, begin, end = "<image_placeholder>", "<begin_of_image>", "<end_of_image>"
    tokenizer = make_tokenizer({"image": image}, image_token=image, boi_token=begin, eoi_token=end)
    tokenizer.add_special_tokens({"bos_token": TEXT})
    config = _library.JanusConfig(
        text_config={**TEXT_SIZES, "model_type": "llama", "bos_token_id": token_id(tokenizer, TEXT)},
        vision_config={
            **VISION_SIZES,
            "image_size": 32,
            "patch_size": 8,
            "mlp_ratio": 2.0,
            "projection_dim": 32,
            "num_image_tokens": 16,
        },
        vq_config={
            **_VQ,
            "embed_dim": 8,
            "num_embeddings": CODES,
            "projection_dim": 32,
            "image_token_embed_dim": 32,
        },
        image_token_id=token_id(tokenizer, image),
        tie_word_embeddings=False,
    )
    processor = _library.JanusProcessor(
        _library.JanusImageProcessor(size={"height": 32, "width": 32}),
        tokenizer,
        chat_template=tokenizer.chat_template,
        num_image_tokens=16,
    )
    return _library.JanusForConditionalGeneration(config), processor


def _chameleon() -> _Made:
    letters = ("".join(chr(ord("A") + int(digit)) for digit in str(code)) for code in range(CODES))
    named = {f"code_{number}": f"IMGIMG{one}Z" for number, one in enumerate(letters)}
    tokens = {"image_token": "<image>", "boi_token": "<racm3:break>", "eoi_token": "<eoss>", "end_of_ask": "<reserved>"}
    tokenizer = make_tokenizer({"image": "<image>"}, **tokens, **named)
    tokenizer.add_special_tokens({"sep_token": "<reserved>"})
    sizes = {name: value for name, value in TEXT_SIZES.items() if name != "head_dim"}
    vq = {**_VQ, "embed_dim": 8, "num_embeddings": CODES, "resolution": 32}
    config = _library.ChameleonConfig(**sizes, vq_config=vq, vocabulary_map=tokenizer.get_vocab())
    size = {"height": 32, "width": 32}
    processor = _library.ChameleonProcessor(
        _library.ChameleonImageProcessor(size={"shortest_edge": 32}, crop_size=size), tokenizer, image_seq_length=16
    )
    return _library.ChameleonForConditionalGeneration(config), processor


def _emu3() -> _Made:
    named = {f"code_{code}": f"<|visual token {code:06}|>" for code in range(CODES)}
    tokens = {
        "image_token": "<image>",
        "boi_token": "<|image start|>",
        "eoi_token": "<|image end|>",
        "image_wrapper_token": "<|image token|>",
        "eof_token": "<|extra_201|>",
        "eol_token": "<|extra_200|>",
    }
    tokenizer = make_tokenizer({"image": "<image>"}, **tokens, **named)
    tokenizer.add_special_tokens({"bos_token": TEXT})
    sizes = {name: value for name, value in TEXT_SIZES.items() if name != "head_dim"}
    text = {**sizes, "bos_token_id": token_id(tokenizer, TEXT), "attention_dropout": 0.0}
    vq = {**_VQ, "codebook_size": CODES, "embed_dim": 4, "latent_channels": 4, "hidden_size": 64}
    config = _library.Emu3Config(
        text_config=text, vq_config=vq, vocabulary_map=tokenizer.get_vocab(), tie_word_embeddings=False
    )
    images = _library.Emu3ImageProcessor(min_pixels=16 * 16, max_pixels=32 * 32)
    processor = _library.Emu3Processor(images, tokenizer, chat_template=tokenizer.chat_template)
    return _library.Emu3ForConditionalGeneration(config), processor


#: how each family is made, by the name transformers gives it
NATIVE: Final[Mapping[str, Callable[[], _Made]]] = MappingProxyType(
    {"janus": _janus, "chameleon": _chameleon, "emu3": _emu3}
)
