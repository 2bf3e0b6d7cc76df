"""Tiny models that read prompts of sounds, for tests: random weights, no download."""

from __future__ import annotations

from tokenizers import pre_tokenizers
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    RobertaTokenizer,
    SequenceFeatureExtractor,
)


def clap(
    width: int = 16, *, length: int = 96
) -> tuple[PreTrainedModel, SequenceFeatureExtractor, PreTrainedTokenizerBase]:
    """A CLAP, what makes its spectrograms, and a tokenizer of bytes.

    width: of the vector that it makes of a text.
    """
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *_bytes()]
    tokenizer = RobertaTokenizer(
        vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=length
    )
    text = {
        "vocab_size": len(words),
        "hidden_size": width,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
        "max_position_embeddings": length + 2,
        "projection_dim": width,
    }
    audio = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "window_size": 4,
        "hidden_size": 32,
        "projection_dim": width,
    }
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=width)
    return ClapModel(config).eval(), ClapFeatureExtractor(feature_size=16), tokenizer


def gpt2(width: int = 16) -> PreTrainedModel:
    """A GPT-2 that goes on from states, and not from words."""
    config = GPT2Config(
        vocab_size=8,
        n_positions=256,
        n_embd=width,
        n_layer=1,
        n_head=2,
        n_inner=2 * width,
        bos_token_id=0,
        eos_token_id=0,
    )
    config.max_new_tokens = 8
    return GPT2LMHeadModel(config).eval()


def qwen3(width: int = 32) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A Qwen 3 without a head, and a tokenizer of bytes."""
    words = [*_bytes(), "<|endoftext|>"]
    tokenizer = Qwen2Tokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    config = Qwen3Config(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=width // 4,
    )
    return Qwen3Model(config).eval(), tokenizer


def _bytes() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())
