"""What the frozen parts of a denoiser give of media and prompts: made once, kept, and made ahead of training."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import torch
from torch import Tensor

from modalign.batch import Medium
from modalign.caching.memo import Memo
from modalign.errors import ConfigError

if TYPE_CHECKING:
    from modalign.caching.features import FeatureCache
    from modalign.decoders.denoiser import Denoiser

Condition: TypeAlias = Mapping[str, Tensor]

LATENTS: Final = "latents"
CONDITIONS: Final = "conditions"

_LOG = logging.getLogger("modalign")


def read(denoiser: Denoiser, what: str, media: Mapping[str, Medium], memo: Memo | None, name: str) -> dict[str, object]:
    """What a frozen part gives of each medium, by digest: once per step, and once at all where a cache is kept.

    name: of the decoder.
    """
    device = next(denoiser.network.parameters()).device.type
    # in the precision of their weights, whatever the network trains in: what is kept must not depend on that
    with torch.no_grad(), torch.autocast(device, enabled=False):
        if (reader := denoiser.readers.get(what)) is None:  # no weights to know it by, and no work
            return dict(zip(media, _make(denoiser, what, list(media.values())), strict=True))
        memo = memo or Memo()
        if denoiser.away and not (memo.cache is not None and memo.cache.knows(reader)):
            denoiser.restore()  # a cache that was set since
        return memo.frozen(f"{name}/{what}", reader, media, partial(_make, denoiser, what), _facts(denoiser, what))


def missing(denoiser: Denoiser, what: str, media: Iterable[Medium], cache: FeatureCache) -> dict[str, Medium]:
    """Media of which a part's cache holds nothing yet, by digest; a `ConfigError` where it may hold nothing of one."""
    found: dict[str, Medium] = {}
    reader, facts = denoiser.readers.get(what), _facts(denoiser, what)
    for one in media if reader is not None else ():
        if not one.cacheable:
            raise ConfigError(
                f"{what} of this {one.modality} cannot be made before the first step",
                where="precompute_features",
                got="a medium that its preparer says is not to be cached",
                fix="leave precompute_features out",
            )
        if not cache.has(cast(torch.nn.Module, reader), one.digest, facts):
            found[one.digest] = one
    return found


def _facts(denoiser: Denoiser, what: str) -> dict[str, object]:
    return {"what": what, **denoiser.facts}


def _make(denoiser: Denoiser, what: str, media: Sequence[Medium]) -> Sequence[object]:
    """What a frozen part gives; one whose weights have left memory gets them back for it."""
    run = denoiser.latents if what == LATENTS else denoiser.conditions
    if not denoiser.away:
        return run(media)
    _LOG.warning("the feature cache has no %s of %d media: what makes them is loaded for it", what, len(media))
    with denoiser.whole():
        found = run(media)
    return [_beside(one) for one in found]  # where the cache, without the part, puts the others


def _beside(one: Tensor | Condition) -> Tensor | Condition:
    return one.cpu() if isinstance(one, Tensor) else {name: value.cpu() for name, value in one.items()}
