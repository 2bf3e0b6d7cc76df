"""What the papers' formulas give of a batch, in float64 from raw predictions: an oracle beside decoder and objectives.

b samples, p pairs, r responses. What is mixed, predicted, added up and lost is written again from the papers; times and
coefficients are the process's own, which other tests compare with the pipelines' schedulers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast, final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from modalign.batch import Batch, Medium
from modalign.decoders.denoiser import Denoiser, DenoisingDecoder
from modalign.decoders.readers import Condition
from modalign.denoising import Prediction
from modalign.draws import Draws
from modalign.integrations.diffusers.denoiser import PipelineDenoiser


@final
@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One draw of one segment, its tensors ``1 ...``, those of floats in float64.

    response: that the segment is of.
    noisy, time, condition: what the network is given.
    target: what it should predict.
    """

    response: int
    noisy: Tensor
    time: Tensor
    condition: Condition
    target: Tensor


def drawn(decoder: DenoisingDecoder, batch: Batch, draws: Draws) -> list[Drawn]:
    """Every draw of a batch: latents, noise and times mixed by the papers' formulas."""
    denoiser, found = decoder.denoiser, list[Drawn]()
    for segment in batch.segments:
        assert segment.digest is not None
        assert segment.given is not None
        with torch.no_grad():
            clean = denoiser.latents([batch.media[segment.digest]])[0].double()
            condition = denoiser.conditions([batch.media[segment.given]])[0]
        for draw in range(draws.count):
            noise = draws.noise(segment.key, draw, tuple(clean.shape)).double()
            time = denoiser.process.time(torch.tensor([draws.uniform(segment.key, draw)]))
            signal, amount = (one.item() for one in denoiser.process.coefficients(time))
            found.append(
                Drawn(
                    response=segment.response,
                    noisy=(signal * clean + amount * noise)[None],
                    time=time,
                    condition={name: _wide(one)[None] for name, one in condition.items()},
                    target=_predicted(clean, noise, signal, amount, denoiser.process.prediction)[None],
                )
            )
    return found


def squared_errors(denoiser: Denoiser, every: Sequence[Drawn]) -> Tensor:
    """Of each draw, ``u``: the network in the type it has, everything behind it in float64."""
    kind = next(denoiser.network.parameters()).dtype
    found: list[Tensor] = []
    for one in every:
        condition = {
            name: value.to(kind) if value.is_floating_point() else value for name, value in one.condition.items()
        }
        prediction = cast(PipelineDenoiser, denoiser).family.predict(one.noisy.to(kind), one.time, condition)
        found.append((prediction.double() - one.target).square().sum())
    return torch.stack(found)


def by_response(errors: Tensor, every: Sequence[Drawn], responses: int) -> Tensor:
    """The mean error of the draws of each response, ``r``, each of which is one segment."""
    owners = torch.tensor([one.response for one in every])
    total = torch.zeros(responses, dtype=torch.float64).index_add(0, owners, errors)
    return total / owners.bincount(minlength=responses)


def diffusion_dpo(policy: Tensor, reference: Tensor, pairs: Tensor, beta: float) -> Tensor:
    """The mean loss of pairs: Eq. 14 of Wallace et al., https://arxiv.org/abs/2311.12908, of sums in place of means.

    policy, reference: ``r`` squared errors.
    pairs: ``p 2`` the chosen and the rejected response.
    """
    chosen, rejected = pairs[:, 0], pairs[:, 1]
    better = policy[chosen] - reference[chosen]
    worse = policy[rejected] - reference[rejected]
    return -logsigmoid(-0.5 * beta * (better - worse)).mean()


@final
class Turned(Denoiser):
    """The same network asked for another prediction: what it gives is turned into that, by ``x_t`` alone.

    inner: whose network it is.
    prediction: what it is asked for.
    """

    def __init__(self, inner: Denoiser, prediction: Prediction) -> None:
        super().__init__()
        self.inner, self.network = inner, inner.network
        self.process = replace(inner.process, prediction=prediction)
        self.readers, self.facts = inner.readers, inner.facts

    def latents(self, media: Sequence[Medium]) -> list[Tensor]:
        return self.inner.latents(media)

    def conditions(self, prompts: Sequence[Medium]) -> list[Mapping[str, Tensor]]:
        return self.inner.conditions(prompts)

    def nothing(self) -> Medium:
        return self.inner.nothing()

    def forward(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        given, noisy = self.inner(noisy, time, condition).double(), noisy.double()
        signal, amount = (one.reshape(-1, *[1] * (noisy.ndim - 1)) for one in self.inner.process.coefficients(time))
        norm = signal.square() + amount.square()  # 1 where the process keeps the variance
        match self.inner.process.prediction:
            case "epsilon":
                clean, noise = (noisy - amount * given) / signal, given
            case "sample":
                clean, noise = given, (noisy - signal * given) / amount
            case "v":
                clean, noise = (signal * noisy - amount * given) / norm, (amount * noisy + signal * given) / norm
            case "flow":
                clean, noise = noisy - amount * given, noisy + signal * given
        return _predicted(clean, noise, signal, amount, self.process.prediction)


def _predicted(
    clean: Tensor, noise: Tensor, signal: Tensor | float, amount: Tensor | float, prediction: Prediction
) -> Tensor:
    match prediction:
        case "epsilon":
            return noise
        case "sample":
            return clean
        case "v":
            return signal * noise - amount * clean
        case "flow":
            return noise - clean


def _wide(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value
