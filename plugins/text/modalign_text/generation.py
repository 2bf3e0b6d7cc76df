"""Writing responses with transformers' `generate`: batches padded on the left, seeded, cut at the end of turn."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import GenerationConfig as LibraryConfig
from transformers import GenerationMixin, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from modalign.config import GenerationConfig
from modalign.errors import DataError, ModelError
from modalign.streaming import Said, heard, tell


def apart(config: GenerationConfig, *, number: int = 0, turn: int = 0) -> GenerationConfig:
    """The same settings with a seed of their own: for prompts from a number on, and for a turn of theirs.

    >>> apart(GenerationConfig(seed=3)).seed, apart(GenerationConfig(seed=3), number=2).seed == 3
    (3, False)
    """
    return config.model_copy(update={"seed": config.seed + number * 15_485_863 + turn * 1_000_003})


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    *,
    stops: frozenset[int],
    pad: int,
    progress: Callable[[int], None] | None = None,
    media: Mapping[str, object] | None = None,
    keep: bool = False,
    never: Sequence[int] = (),
    words: Callable[[Sequence[int]], str] | None = None,
) -> list[list[int]]:
    """The tokens written after each prompt, in their order, without the one that ended the turn.

    stops: token ids any of which ends a turn.
    pad: a token id for the left ends of short prompts; masked.
    progress: called with the number of prompts done, after each batch.
    media: what the model is given beside the tokens, of a single prompt or of one batch.
    keep: the token that ended it too, where there is one.
    never: token ids that are not written.
    words: tokens as words, for who listens to a response as it is written.
    """
    if empty := [number for number, prompt in enumerate(prompts) if not prompt]:
        raise DataError("a prompt is empty once encoded", got=f"prompt {empty[0] + 1}", fix="give it some content")
    device = next(model.parameters()).device
    # Janus has a `generate` of its own for its two heads, which sets a length twice and warns of it: words need no more
    # than the common one
    own = model.config.model_type == "janus"
    write = cast(Callable[..., Tensor], partial(cast(Any, GenerationMixin).generate, model) if own else model.generate)
    written: list[list[int]] = []
    with torch.no_grad(), seeded(config.seed, device), _speaking(model, _settings(model, config, stops, pad, never)):
        for first in range(0, len(prompts), config.batch_size):
            batch = prompts[first : first + config.batch_size]
            tokens, mask = pad_left(batch, pad)
            told = {} if words is None or not heard() else {"streamer": _Teller(words, stops)}
            answer = write(input_ids=tokens.to(device), attention_mask=mask.to(device), **told, **(media or {}))
            written.extend(cut(row, stops, keep=keep) for row in answer[:, tokens.shape[1] :].tolist())
            if progress is not None:
                progress(len(batch))
    return written


class _Teller(BaseStreamer):
    """Tells what a model says, token by token; a character that takes several tokens is told when it is whole."""

    def __init__(self, words: Callable[[Sequence[int]], str], stops: frozenset[int]) -> None:
        self._words, self._stops = words, stops
        self._ids: list[int] | None = None  # the first that comes is the prompt
        self._told = ""

    def put(self, value: Tensor) -> None:
        if self._ids is None:
            self._ids = []
            return
        self._ids += [token for token in value.flatten().tolist() if token not in self._stops]
        self._tell(self._words(self._ids).removesuffix("\N{REPLACEMENT CHARACTER}"))

    def end(self) -> None:
        self._tell(self._words(self._ids or []))

    def _tell(self, whole: str) -> None:
        if whole.startswith(self._told) and len(whole) > len(self._told):
            tell(Said(whole[len(self._told) :]))
            self._told = whole


def pad_left(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Prompts as one tensor with its mask, ``b n`` and ``b n``; their ends are aligned.

    >>> pad_left([[5, 6], [7]], 0)[0].tolist()
    [[5, 6], [0, 7]]
    """
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return tokens, mask


def cut(tokens: Sequence[int], stops: frozenset[int], *, keep: bool = False) -> list[int]:
    """The tokens before the first that ends the turn.

    keep: and that one.

    >>> cut([4, 5, 2, 9], frozenset({2}))
    [4, 5]
    """
    end = next((at for at, token in enumerate(tokens) if token in stops), len(tokens))
    return list(tokens[: end + keep])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Sampling from ``seed``; the caller's random state comes back untouched."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _settings(
    model: PreTrainedModel, config: GenerationConfig, stops: frozenset[int], pad: int, never: Sequence[int]
) -> LibraryConfig:
    """Settings from nothing: a checkpoint's own temperature or penalties would colour what is measured."""
    sampling: dict[str, object] = {"do_sample": False}
    if config.temperature > 0:
        sampling = {
            "do_sample": True,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": config.top_k,
        }
    own = model.generation_config
    return LibraryConfig(
        max_new_tokens=config.max_new_tokens,
        eos_token_id=sorted(stops) or None,
        pad_token_id=pad,
        bos_token_id=None if own is None else own.bos_token_id,
        use_cache=True,
        suppress_tokens=list(never) or None,
        **sampling,
    )


@contextmanager
def _speaking(model: PreTrainedModel, settings: LibraryConfig) -> Iterator[None]:
    """The model in eval mode with these settings and no others, for as long as the context lasts."""
    if not model.can_generate():
        raise ModelError("this model cannot generate", got=type(model).__name__, fix="use a causal language model")
    modes = [(module, module.training) for module in model.modules()]
    before = copy.copy(model.generation_config)
    try:
        model.eval()
        # in place of its own, since `generate` fills what a given config leaves open from the model's
        model.generation_config = settings
        yield
    finally:
        model.generation_config = before
        _restore(modes)


def _restore(modes: Sequence[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        module.training = training
