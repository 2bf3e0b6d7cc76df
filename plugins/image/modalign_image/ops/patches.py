"""8-bit pixels to normalised patches in one pass: rescaled, normalised and laid out as a vision tower reads them.

b pictures or clips, t frames, c channels, h w pixels, p q pixels of a patch's sides.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal, final

import torch
from einops import rearrange, repeat
from torch import Tensor

from modalign.errors import ConfigError, KernelUnavailable, ModelError, ShapeError

Impl = Literal["auto", "reference", "kernel"]
Layout = Literal["plain", "merged", "whole"]

_log = logging.getLogger(__name__)


def patches(
    x: Tensor,
    *,
    patch: int | None = None,
    mean: Sequence[float],
    std: Sequence[float],
    scale: float = 1 / 255,
    layout: Layout = "plain",
    merge: int = 2,
    temporal: int = 2,
    dtype: torch.dtype = torch.float32,
    impl: Impl = "auto",
) -> Tensor:
    """Patches of ``(scale * x - mean) / std``, one row each.

    `plain` gives ``b (h w) (c p q)`` in reading order, as a ViT's convolution takes them. `merged` gives
    ``b (t h w) (c temporal p q)`` as Qwen2-VL's processors do: squares of ``merge`` by ``merge`` patches follow one
    another, and each row holds ``temporal`` frames. A picture fills them with copies of itself, a clip of an odd
    length its end with copies of the last frame. `whole` leaves ``b c h w``, for towers that cut patches
    themselves.

    x: ``b c h w``, or ``b t c h w`` for clips in the merged layout; uint8, resized already, strides as they are.
    patch: pixels of a patch's side, which `whole` does without.
    mean, std: of each channel, on the scale of ``scale * x``.
    dtype: of the patches; the arithmetic is in float32.
    impl: `reference` is plain torch; `kernel` is Triton's, on a GPU or in its interpreter; `auto` takes the kernel on a
        GPU.

    >>> x = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    >>> patches(x, patch=2, mean=(0.5,) * 3, std=(0.5,) * 3).shape
    torch.Size([1, 4, 12])
    """
    if impl not in ("auto", "reference", "kernel"):
        raise ConfigError(
            f"patches has no implementation {impl!r}", got="auto, reference, kernel", fix="pass one of them"
        )
    taken = impl
    if impl == "auto":
        taken = "kernel" if x.is_cuda and find_spec("triton") is not None else "reference"
        _announce(taken)
    run = kernel if taken == "kernel" else reference
    return run(
        x, patch=patch, mean=mean, std=std, scale=scale, layout=layout, merge=merge, temporal=temporal, dtype=dtype
    )


def reference(
    x: Tensor,
    *,
    patch: int | None = None,
    mean: Sequence[float],
    std: Sequence[float],
    scale: float = 1 / 255,
    layout: Layout = "plain",
    merge: int = 2,
    temporal: int = 2,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The same in plain torch: normalised in place, then laid out; frames that are copies are made last."""
    plan = _plan(x, patch, mean, std, scale, layout, merge, temporal)
    # channels first whatever the bytes are: rows are then copied in runs of a patch's width
    values = plan.clips.to(torch.float32, memory_format=torch.contiguous_format)
    values.mul_(rearrange(plan.factor, "c -> c 1 1")).sub_(rearrange(plan.shift, "c -> c 1 1"))
    if layout == "whole":
        return rearrange(values, "b 1 c h w -> b c h w").to(dtype)
    sides = {"m": plan.merge, "n": plan.merge, "p": plan.patch, "q": plan.patch}
    if values.shape[1] == 1:
        rows = repeat(values, "b 1 c (h m p) (w n q) -> b (h w m n) (c f p q)", f=plan.temporal, **sides)
    else:
        if missing := -values.shape[1] % plan.temporal:
            last = repeat(values[:, -1:], "b 1 c h w -> b more c h w", more=missing)
            values = torch.cat([values, last], dim=1)
        pattern = "b (t f) c (h m p) (w n q) -> b (t h w m n) (c f p q)"
        rows = rearrange(values, pattern, f=plan.temporal, **sides)
    return rows.to(dtype)


def kernel(
    x: Tensor,
    *,
    patch: int | None = None,
    mean: Sequence[float],
    std: Sequence[float],
    scale: float = 1 / 255,
    layout: Layout = "plain",
    merge: int = 2,
    temporal: int = 2,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The same by one Triton kernel, which reads each byte and writes each value once."""
    plan = _plan(x, patch, mean, std, scale, layout, merge, temporal)
    if find_spec("triton") is None:
        raise KernelUnavailable("patches(impl='kernel') needs Triton", got="no triton", fix="pass impl='reference'")
    from modalign_image.ops.patches_kernel import interpreted, launch, launch_whole

    if not (x.is_cuda or interpreted()):
        raise KernelUnavailable(
            "patches(impl='kernel') needs a GPU, or Triton's interpreter",
            got=f"a tensor on {x.device}, TRITON_INTERPRET unset",
            fix="pass impl='reference'",
        )
    if layout == "whole":
        return launch_whole(rearrange(plan.clips, "b 1 c h w -> b c h w"), plan.factor, plan.shift, dtype=dtype)
    return launch(
        plan.clips,
        plan.factor,
        plan.shift,
        patch=plan.patch,
        merge=plan.merge,
        temporal=plan.temporal,
        dtype=dtype,
    )


@final
@dataclass(frozen=True, kw_only=True)
class _Plan:
    """All layouts as one: clips ``b t c h w``, of which plain merges 1 by 1 and holds 1 frame in a row.

    factor, shift: ``c`` what each channel is multiplied by, and what is then taken off.
    """

    clips: Tensor
    factor: Tensor
    shift: Tensor
    patch: int
    merge: int
    temporal: int


def _plan(  # noqa: PLR0917 (the op's own arguments, in its order)
    x: Tensor,
    patch: int | None,
    mean: Sequence[float],
    std: Sequence[float],
    scale: float,
    layout: Layout,
    merge: int,
    temporal: int,
) -> _Plan:
    if layout not in ("plain", "merged", "whole"):
        raise ConfigError(f"patches has no layout {layout!r}", got="plain, merged, whole", fix="pass one of them")
    if layout != "merged":
        merge = temporal = 1
    if layout == "whole":
        patch = 1
    if patch is None:
        raise ConfigError(f"the {layout} layout cuts patches", where="patch", fix="pass a patch's side")
    if min(patch, merge, temporal) < 1:
        raise ConfigError("patch, merge and temporal are at least 1", got=f"{patch}, {merge}, {temporal}")
    clips = _clips(x, layout)
    _, t, c, h, w = clips.shape
    side = patch * merge
    if not t or h % side or w % side or not h or not w:
        axes = f"{patch} pixels" if merge == 1 else f"{merge} patches of {patch} pixels"
        raise ShapeError(f"height and width must be whole multiples of {axes}", got=tuple(x.shape))
    if not (len(mean) == len(std) == c):
        got = f"{len(mean)} and {len(std)}, of {tuple(x.shape)}"
        raise ShapeError(f"one mean and one std for each of {c} channels", got=got)
    if not all(std):
        raise ConfigError("a standard deviation of 0 divides by nothing", where="std", got=tuple(std))
    middle, spread = (torch.tensor(list(one), dtype=torch.float64) for one in (mean, std))
    return _Plan(
        clips=clips,
        factor=(scale / spread).float().to(x.device),
        shift=(middle / spread).float().to(x.device),
        patch=patch,
        merge=merge,
        temporal=temporal,
    )


def _clips(x: Tensor, layout: Layout) -> Tensor:
    if x.dtype != torch.uint8:
        raise ModelError("patches are made of uint8", got=str(x.dtype), fix="give the pixels before they are rescaled")
    if x.ndim == 4:
        return rearrange(x, "b c h w -> b 1 c h w")
    if x.ndim != 5 or layout != "merged":
        wanted = '"b c h w" or "b t c h w"' if layout == "merged" else '"b c h w"'
        raise ShapeError(f"patches in the {layout} layout are of {wanted}", got=tuple(x.shape))
    return x


def probe() -> dict[str, object]:
    """Arguments to try it on, by name: two pictures that are not square."""
    pixels = torch.randint(0, 256, (2, 3, 8, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return {"x": pixels, "patch": 4, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


@cache
def _announce(taken: str) -> None:
    _log.info("patches: impl='auto' takes '%s'", taken)
