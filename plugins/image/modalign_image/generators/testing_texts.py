"""Tiny language models that read prompts, for tests: random weights, no download."""

from __future__ import annotations

from string import printable

from tokenizers import pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
)


def gemma2(width: int = 32) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A Gemma 2 of one layer and one head, since what it reads is long, and a tokenizer of characters."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *sorted(set(printable) - {" "})]
    tokenizer = GemmaTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    config = Gemma2Config(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
    )
    return Gemma2Model(config).eval(), tokenizer


def qwen2_5_vl(width: int = 32) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A Qwen2.5-VL, and a tokenizer of bytes."""
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Qwen2Tokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": words[-2:]})
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "vocab_size": len(words),
            "bos_token_id": None,
            "eos_token_id": len(words) - 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_heads": 2,
            "out_hidden_size": width,
            "fullatt_block_indexes": [0],
        },
        tie_word_embeddings=False,
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval(), tokenizer
