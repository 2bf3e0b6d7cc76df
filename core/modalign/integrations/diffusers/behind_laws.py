"""What must hold of a family behind a backbone: its pipeline calls the network with the states that condition it.

b samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, cast

import torch
from torch import Tensor

from modalign.config import GenerationConfig
from modalign.connectors.conditioner import Conditioner
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.errors import ModelError
from modalign.integrations.diffusers.denoiser import PipelineDenoiser
from modalign.integrations.diffusers.family import Family
from modalign.integrations.diffusers.recording import recorded
from modalign.model import Model
from modalign.testing.case import require

_WIDTH: Final = 16
_STEPS: Final = 2


@torch.no_grad()
def check_behind(
    model: Model,
    seen: Callable[[Family, Mapping[str, object]], tuple[Tensor, Tensor]],
    shaped: Callable[[Family, Tensor], Tensor],
) -> None:
    """Raise where a pipeline that is given states calls its network otherwise than it is scored with them.

    A family that says nothing of its pipeline's arguments must refuse, in words.

    seen, shaped: of `FamilyLaws`.
    """
    (decoder,) = model.decoders.values()
    denoiser = cast(PipelineDenoiser, cast(DenoisingDecoder, decoder).denoiser)
    family = denoiser.family
    if not family.spoken:
        try:
            denoiser.wanted()
        except ModelError as error:
            require("states of a backbone" in str(error), f"it must say why; found: {error}")
            return
        require(False, "a family that cannot be given states must refuse them")
    wanted = denoiser.wanted()
    count = {} if wanted.exactly else {"queries": 5}
    made = Conditioner(_WIDTH, wanted, heads=4, seed=1, **count)
    for name, wide in wanted.sequences.items():
        said = made.outs[name](torch.randn(4, _WIDTH, generator=torch.Generator().manual_seed(2)))
        size = said.square().mean().sqrt().item()
        require(abs(size / wide.rms - 1) < 0.01, f"{name} begins at the size of what it replaces: {size} is {wide.rms}")
    states = torch.randn(2, len(made.queries), _WIDTH, generator=torch.Generator().manual_seed(1))
    condition, nothing = made(states), made.nothing()
    with recorded(family.denoise) as calls:
        first = _painted(denoiser, condition, nothing, guidance=0.0)
    require(len(first) == 2, f"a medium of each condition; found: {len(first)}")
    theirs, given = calls[0]
    noisy, time = seen(family, given)
    mine = denoiser(noisy, time.expand(len(noisy)), {name: one[: len(noisy)] for name, one in condition.items()})
    theirs = shaped(family, theirs)
    require(torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5), f"off by {(mine - theirs).abs().max():.2g}")
    denoiser.hears_states()
    for part in denoiser.family.readers["conditions"]:
        require(not list(part.parameters()), "text encoders that nothing needs have no weights")
    again = _painted(denoiser, condition, nothing, guidance=0.0)
    require(
        all(one.equal(other) for one, other in zip(first, again, strict=True)),
        "equal seeds write the same, without the text encoders too",
    )
    turned = {name: one.flip(0) for name, one in condition.items()}
    other = _painted(denoiser, turned, nothing, guidance=0.0)
    require(not torch.allclose(first[0], other[0], atol=1e-5), "what is written depends on the states")
    _painted(denoiser, condition, nothing, guidance=3.0)


def _painted(
    denoiser: PipelineDenoiser, condition: Mapping[str, Tensor], nothing: Mapping[str, Tensor], *, guidance: float
) -> list[Tensor]:
    config = GenerationConfig(num_inference_steps=_STEPS, guidance_scale=guidance)
    sources = [torch.Generator().manual_seed(number) for number in range(2)]
    return [cast(Tensor, part.value) for part in denoiser.paint(condition, nothing, sources, config)]
