"""What must hold of routes through a pipeline's own sampler: where gradients come back, and what a leap is.

b samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, cast

import torch
from torch import Tensor

from modalign.decoders.backprop import Route
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.decoders.generating import prompt_medium
from modalign.integrations.diffusers.denoiser import PipelineDenoiser
from modalign.integrations.diffusers.family import Family
from modalign.integrations.diffusers.recording import noted, recorded
from modalign.model import Model
from modalign.testing.case import require
from modalign.world.source import words_modality

_STEPS: Final = 3
_LEAP: Final = 1


def check_routes(model: Model) -> None:
    """Raise where media of a route are not those of plain sampling, or another number of its steps has a graph.

    model: with adapters that train.
    """
    values = list(model.trainable().values())
    kept: dict[int | None, int] = {}
    slopes: dict[int | None, Tensor] = {}
    with torch.no_grad():
        plain = _made(model, Route(steps=_STEPS, last=None))
    require(not plain.requires_grad, "where gradients are off there is no graph")
    for last in (1, None):
        saved = 0

        def pack(value: Tensor) -> Tensor:
            nonlocal saved
            saved += value.numel()
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            media = _made(model, Route(steps=_STEPS, last=last))
        require(torch.allclose(media, plain, atol=1e-5), "media of a route are those of plain sampling")
        found = torch.autograd.grad(media.float().square().mean(), values, allow_unused=True)
        slopes[last] = torch.cat([one.flatten() for one in found if one is not None])
        kept[last] = saved
    require(bool(slopes[1].any()), "a gradient comes back through the last step")
    require(not torch.allclose(slopes[1], slopes[None], rtol=0.01, atol=0.0), "more steps give another gradient")
    require(kept[1] < kept[None], f"fewer steps keep less for it; found: {kept}")


def check_leap(
    model: Model,
    seen: Callable[[Family, Mapping[str, object]], tuple[Tensor, Tensor]],
    shaped: Callable[[Family, Tensor], Tensor],
    ended: Callable[[Family, Tensor], Tensor],
) -> None:
    """Raise where what a leap decodes is not what the network's call predicts as clean, by the scheduler's numbers.

    seen, shaped, ended: of `FamilyLaws`.
    """
    family = _denoiser(model).family
    autoencoder = family.part(family.autoencoder)
    with recorded(family.denoise) as calls, noted(autoencoder, "decode") as decoded, torch.no_grad():
        _made(model, Route(steps=_STEPS, leap=_LEAP))
    require(len(calls) == _LEAP + 1, f"no step is taken after a leap; found: {len(calls)} for step {_LEAP}")
    require(len(decoded) == 1, "the pipeline decodes once")
    prediction, given = calls[-1]
    noisy, time = seen(family, given)
    clean = _clean(family, noisy.double(), shaped(family, prediction).double(), float(time.reshape(-1)[0]))
    expected = ended(family, clean)
    found = family.scaled(cast(Tensor, decoded[0][0])).double()
    require(found.shape == expected.shape, f"{tuple(found.shape)} is {tuple(expected.shape)}")
    off = (found - expected).abs().max() / expected.abs().max()
    require(bool(off < 1e-3), f"a leap is what is clean by its step's prediction; off by {off:.2g} of the largest")


def _clean(family: Family, noisy: Tensor, prediction: Tensor, time: float) -> Tensor:
    """What a prediction means, written again from the definitions."""
    process = family.process
    match process.path:
        case "table":
            alphas = cast(Tensor, vars(family.pipe.scheduler)["alphas_cumprod"])
            signal = float(alphas[round(time)]) ** 0.5
            amount = (1.0 - signal**2) ** 0.5
        case "cosine":
            signal, amount = math.cos(time * math.pi / 2), math.sin(time * math.pi / 2)
        case "flow":
            signal, amount = 1.0 - time, time
    match process.prediction:
        case "epsilon":
            return (noisy - amount * prediction) / signal
        case "v":
            return signal * noisy - amount * prediction
        case "sample":
            return prediction
        case "flow":
            return noisy - amount * prediction


def _made(model: Model, route: Route) -> Tensor:
    prompt = prompt_medium("a red square", words_modality())
    return _denoiser(model).sample([prompt], [torch.Generator().manual_seed(1)], route)


def _denoiser(model: Model) -> PipelineDenoiser:
    (decoder,) = model.decoders.values()
    return cast(PipelineDenoiser, cast(DenoisingDecoder, decoder).denoiser)
