"""Tiny text encoders and tokenizers for tests of pipelines: random weights, no download."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Protocol, cast

import diffusers
import torch
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

_LETTERS = ascii_lowercase + digits + ".,:'"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it the CPU draws from this seed; the caller's random state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        yield


def part(name: str, **settings: object) -> nn.Module:
    """A part of a pipeline, by the name of its class."""
    return cast("Callable[..., nn.Module]", getattr(diffusers, name))(**settings).eval()


def save(folder: Path, name: str, **parts: object) -> Path:
    """Write a pipeline of these parts; returns the folder.

    name: of its class.
    """
    pipe = cast("Callable[..., _Saved]", getattr(diffusers, name))(**parts)
    pipe.save_pretrained(folder)
    return folder


class _Saved(Protocol):
    def save_pretrained(self, folder: Path) -> None: ...


def clip(width: int = 32, *, projection: int | None = None, length: int = 96) -> tuple[PreTrainedModel, CLIPTokenizer]:
    """A text encoder of CLIP, and a tokenizer of letters.

    projection: width of the pooled vector, where there is one.
    """
    words = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=length
    )
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=length,
        projection_dim=projection or width,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    kind = CLIPTextModel if projection is None else CLIPTextModelWithProjection
    return kind(config).eval(), tokenizer


def t5(width: int = 32, *, length: int = 96) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The encoder of a T5, and a tokenizer of letters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -2.0) for letter in _LETTERS + _LETTERS[:26].upper()]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)
    config = T5Config(vocab_size=len(pieces), d_model=width, d_kv=width // 4, d_ff=2 * width, num_layers=2, num_heads=4)
    return T5EncoderModel(config).eval(), tokenizer
