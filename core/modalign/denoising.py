"""Diffusion and flow as pure tensor mathematics: what is mixed with noise, what is predicted, and when.

A process mixes clean latents with noise, ``x_t = signal(t) * x_0 + noise(t) * e``, and a network predicts one of the
two or a mixture of them. The times of a process are its own: steps of a table, or numbers from 0 (clean) to 1 (noise).

b samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, cast, final, get_args

import torch
from torch import Tensor

from modalign.errors import ConfigError
from modalign.ops.add_noise import add_noise, along

Prediction = Literal["epsilon", "v", "sample", "flow"]
Times = Literal["auto", "uniform", "logit_normal", "stratified"]
Weighting = Literal["constant", "snr", "signal"]

PREDICTIONS: Final[tuple[Prediction, ...]] = get_args(Prediction)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Process:
    """How clean latents become noise, and what the network is asked for.

    prediction: `epsilon`, the noise; `sample`, what is clean; `v`, ``signal * e - noise * x_0`` (Salimans and Ho,
        https://arxiv.org/abs/2202.00512, eq. in section 4); `flow`, ``e - x_0`` (Liu et al.,
        https://arxiv.org/abs/2209.03003).
    path: `flow`, where signal is 1 - t and noise is t; `cosine`, where they are cosine and sine of t pi / 2; `table`.
    alphas: of a table, the squared signal of each step, the steps from clean to noise.
    shift: of a flow, how far its times are moved towards noise: ``shift t / (1 + (shift - 1) t)``, Eq. 23 of Esser et
        al., https://arxiv.org/abs/2403.03206.
    times: how times are drawn where nobody says otherwise.

    >>> flow = Process(prediction="flow")
    >>> clean, noise = torch.tensor([[1.0]]), torch.tensor([[3.0]])
    >>> flow.mix(clean, noise, torch.tensor([0.25])), flow.target(clean, noise, torch.tensor([0.25]))
    (tensor([[1.5000]]), tensor([[2.]]))
    """

    prediction: Prediction
    path: Literal["flow", "cosine", "table"] = "flow"
    alphas: Tensor | None = None
    shift: float = 1.0
    times: Literal["uniform", "logit_normal"] = "uniform"

    def __post_init__(self) -> None:
        if (self.path == "table") != (self.alphas is not None):
            msg = f"a path of {self.path} has {'no' if self.alphas is not None else 'a'} table of alphas"
            raise ValueError(msg)
        if self.prediction == "flow" and self.path != "flow":
            msg = f"a network that predicts a flow has a path of flow, not {self.path}"
            raise ValueError(msg)

    # --- times -----------------------------------------------------------------------------------

    def time(self, quantile: Tensor, how: Times = "auto", *, mean: float = 0.0, spread: float = 1.0) -> Tensor:
        """Times from numbers in [0, 1), ``b`` in float64: whole steps of a table, else in [0, 1].

        how: `uniform`; `logit_normal`, whose logit is normal with ``mean`` and ``spread`` (Esser et al.);
            `stratified` is uniform, of quantiles that were spread over the batch.
        """
        which = self.times if how == "auto" else how
        found = quantile.double()
        if which == "logit_normal":
            tiny = torch.finfo(torch.float64).tiny
            found = torch.sigmoid(mean + spread * torch.special.ndtri(found.clamp(tiny, 1 - 2**-53)))
        if self.alphas is not None:
            steps = len(self.alphas)
            return (found * steps).floor().clamp(max=steps - 1)
        return (self.shift * found / (1 + (self.shift - 1) * found)).clamp(max=1)  # it may round to more

    def coefficients(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise at each time, ``b`` and ``b`` in float64."""
        time = time.double()
        if self.alphas is not None:
            squared = self.alphas.to(device=time.device, dtype=torch.float64)[time.long()]
            return squared.sqrt(), (1 - squared).sqrt()
        if self.path == "cosine":
            angle = time * (math.pi / 2)
            return angle.cos(), angle.sin()
        return 1 - time, time

    # --- training --------------------------------------------------------------------------------

    def mix(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Noisy latents ``b ...``, of the type of the clean ones."""
        return self.noised(clean, noise, time)[0]

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What the network should predict, ``b ...``."""
        return self.noised(clean, noise, time)[1]

    def noised(self, clean: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Both, each ``b ...``, in one pass where a kernel runs."""
        signal, amount = self.coefficients(time)
        return add_noise(clean, noise, signal, amount, prediction=self.prediction)

    def clean(self, noisy: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        """The clean latents that a prediction means, ``b ...``; what is noise alone says nothing of them where the
        network predicts the noise, and gives infinities."""
        signal, amount = (along(one, noisy) for one in self.coefficients(time))
        match self.prediction:
            case "epsilon":
                return (noisy - amount * prediction) / signal
            case "sample":
                return prediction
            case "v":
                norm = signal.square() + amount.square()
                return (signal * noisy - amount * prediction) / norm
            case "flow":
                return noisy - amount * prediction

    def scale(self, time: Tensor, to: Literal["epsilon", "sample"]) -> Tensor:
        """What a squared error of the network is to be multiplied by to be one of the noise or of what is clean.

        Follows from ``x_t = signal * x_0 + noise * e`` at a given ``x_t``. ``b`` in float64.

        >>> Process(prediction="flow").scale(torch.tensor([0.25]), "epsilon")  # (1 - t)^2
        tensor([0.5625], dtype=torch.float64)
        """
        signal, amount = self.coefficients(time)
        ratio = amount / signal  # an error of the noise is this much of what is clean, with the sign turned
        match self.prediction:
            case "epsilon":
                found = torch.ones_like(signal) if to == "epsilon" else ratio
            case "sample":
                found = ratio.reciprocal() if to == "epsilon" else torch.ones_like(signal)
            case "v":
                norm = signal.square() + amount.square()
                found = (signal if to == "epsilon" else amount) / norm
            case "flow":
                found = signal if to == "epsilon" else amount
        return found.square()

    def weight(self, time: Tensor, how: Weighting) -> Tensor:
        """The weight of a squared error at each time, ``b`` in float64.

        how: `constant` is 1; `snr` is the signal-to-noise ratio ``signal^2 / noise^2``; `signal` is ``signal^2``, which
            for a flow is (1 - t)^2, the weight that theory gives Flow-DPO (Liu et al.,
            https://arxiv.org/abs/2501.13918, who find that a constant one is better).
        """
        signal, amount = self.coefficients(time)
        match how:
            case "constant":
                return torch.ones_like(signal)
            case "snr":
                return signal.square() / amount.square().clamp(min=torch.finfo(torch.float32).eps)
            case "signal":
                return signal.square()


def check_prediction(said: str, where: str) -> Prediction:
    """What a network predicts, by the name its scheduler has for it."""
    names = {"v_prediction": "v", "flow_prediction": "flow"}
    found = names.get(said, said)
    if found not in PREDICTIONS:
        raise ConfigError(
            f"no network that predicts {said!r} can be trained",
            where=where,
            got=said,
            fix=f"prediction_type of its scheduler: {', '.join(sorted({*PREDICTIONS, *names}))}",
        )
    return cast(Prediction, found)
