"""The decoder that every diffusion and flow model is: a denoiser's errors at seeded noise and times, as draws.

b samples of a call, u units.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast, final

import torch
from torch import Tensor, nn

from modalign.batch import Batch, Medium, Segment
from modalign.config import GenerationConfig
from modalign.content import Part
from modalign.decoders.backprop import Backprop, Route
from modalign.decoders.readers import CONDITIONS, LATENTS, Condition, missing, read
from modalign.denoising import Process
from modalign.draws import Draws
from modalign.errors import DataError, ModelError
from modalign.frozen import empty
from modalign.layout import Layout
from modalign.ops.squared_error import squared_error
from modalign.roles import Decoder
from modalign.scores import UnitKind, Units
from modalign.timeline import Timeline, no_time

if TYPE_CHECKING:
    from modalign.connectors.conditioner import Conditioner, Wanted

_NOTHING: Final = "states of nothing"


class Denoiser(nn.Module, ABC):
    """The network inside a diffusion or flow decoder, with the frozen parts that make what it reads.

    process: how clean latents become noise, and what the network predicts.
    network: what trains.
    readers: frozen modules by what they give: `latents` and `conditions`; what none gives is made anew each time.
    facts: settings beside weights that what they give depends on.
    """

    process: Process
    network: nn.Module
    readers: Mapping[str, nn.Module] = empty()
    facts: Mapping[str, object] = empty()

    @abstractmethod
    def latents(self, media: Sequence[Medium]) -> list[Tensor]:
        """Clean latents of each medium in float32, scaled as the network knows them, without a batch axis."""

    @abstractmethod
    def conditions(self, prompts: Sequence[Medium]) -> list[Condition]:
        """What conditions the network, of each prompt, without a batch axis."""

    @abstractmethod
    def nothing(self) -> Medium:
        """The prompt that asks for nothing: what guidance without a classifier compares with."""

    def without(self, prompt: Medium) -> Medium:
        """The prompt that asks for nothing in the place of this one: of the same size, where prompts say sizes."""
        return self.nothing()

    @property
    def away(self) -> bool:
        """Whether the weights of readers have left memory."""
        return False

    def release(self) -> None:
        """Free the memory of the readers' weights."""

    def restore(self, device: torch.device | None = None) -> None:
        """Have the readers' weights back.

        device: by default the network's.
        """

    @contextmanager
    def whole(self, device: torch.device | None = None) -> Iterator[None]:
        """Within it the readers have their weights, also those that have left memory."""
        if not self.away:
            yield
            return
        self.restore(device)
        try:
            yield
        finally:
            self.release()

    def sample(self, prompts: Sequence[Medium], sources: Sequence[torch.Generator], route: Route) -> Tensor:
        """A medium of each prompt, ``b ...`` as its modality lays out what is decoded, with the graph of the route.

        sources: of noise, one for each, on the CPU.
        """
        raise ModelError(
            "no gradient passes through how this model makes media",
            got=type(self).__name__,
            fix="write its `sample`, or use an objective that learns from responses (DPO, SFT)",
        )

    def paint(
        self, condition: Condition, nothing: Condition, sources: Sequence[torch.Generator], config: GenerationConfig
    ) -> list[Part]:
        """A medium of each condition, sampled as its library does.

        condition: each tensor ``b ...``, of a conditioner.
        nothing: what guidance compares with, without an axis ``b``.
        sources: of noise, one for each, on the CPU.
        """
        raise ModelError(
            "this denoiser does not write behind a backbone",
            got=type(self).__name__,
            fix="write its `paint`",
        )

    def wanted(self) -> Wanted:
        """What conditions the network, as far as the states of a backbone can stand for it."""
        raise ModelError(
            "this denoiser cannot stand behind a backbone",
            got=type(self).__name__,
            fix="write its `wanted`, which says what conditions it",
        )

    def hears_states(self) -> None:
        """From now on states condition the network: what reads prompts is not needed, and may leave memory."""

    @property
    def timeline(self) -> Timeline:
        """When each latent of a medium is; a `DataError` where media have no time."""
        raise no_time("what this model makes")

    @abstractmethod
    def forward(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """The network's prediction ``b ...``.

        noisy: ``b ...`` in float32.
        time: ``b`` of the process, in float64.
        condition: each tensor ``b ...``.
        """


@final
@dataclass(frozen=True, kw_only=True)
class _Row:
    """One draw of one segment."""

    number: int
    segment: Segment
    draw: int
    given: str


@final
class DenoisingDecoder(Decoder):
    """``-1/2 * weight(t) * sum((prediction - target)^2)`` of each draw: a bound on the log-likelihood of a medium.

    Eq. 14 of Wallace et al., "Diffusion model alignment using direct preference optimization",
    https://arxiv.org/abs/2311.12908, whose ``beta`` is of means over dimensions: here everything is a sum. Squared
    errors are added up in float64.

    denoiser: the network and what makes its input.
    modality: of the segments it scores; segments name the decoder by it too.
    conditioner: behind a backbone, whose states, at query positions or before the medium, then condition the network.
    """

    kind: UnitKind = "draw"
    precomputes = True
    anywhere = False

    def __init__(self, denoiser: Denoiser, *, modality: str, conditioner: Conditioner | None = None) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.modality = modality
        self.conditioner = conditioner

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [self.denoiser], [] if self.conditioner is None else [self.conditioner]

    def embed(self, medium: Medium) -> Tensor:
        return super().embed(medium) if self.conditioner is None else self.conditioner.queries

    def forward(self, states: Tensor | None, batch: Batch, draws: Draws) -> Units:
        rows = [
            _Row(number=number, segment=segment, draw=draw, given="")
            for number, segment in enumerate(batch.segments)
            if segment.decoder == self.modality
            for draw in range(draws.count)
        ]
        device = _device(self.denoiser.network)
        if not rows:
            return self._nothing(device)
        media = dict(batch.media)
        rows = [self._given(row, draws, media) for row in rows]
        latents = cast("dict[str, Tensor]", self.read(LATENTS, _of(media, (_digest(row) for row in rows))))
        self._check(latents, [row.segment for row in rows], batch)
        conditions = self._states(states, rows, batch.layout)
        if asked := _of(media, (row.given for row in rows if row.given not in conditions)):
            conditions |= cast("dict[str, Condition]", self.read(CONDITIONS, asked))
        keys = [(row.segment.key, row.draw) for row in rows]
        time = self.denoiser.process.time(
            draws.quantiles(keys), draws.times, mean=draws.time_mean, spread=draws.time_spread
        )
        values = time.new_zeros(len(rows)).to(device)
        for places in _alike(rows, latents, conditions):
            found = self._errors([rows[at] for at in places], time[places].to(device), latents, conditions, draws)
            values = values.index_put((torch.tensor(places, device=device),), -0.5 * found)
        return Units(
            kind=self.kind,
            values=values,
            segment=torch.tensor([row.number for row in rows], device=device),
            dims=torch.tensor([self._dims(row.segment, latents[_digest(row)].shape) for row in rows], device=device),
        )

    def judged(self, batch: Batch, draws: Draws, backprop: Backprop) -> Tensor:
        from modalign.decoders.making import judge  # it reads prompts, which this needs nothing of

        found = judge(self.denoiser, self.modality, batch, draws, backprop)
        traced = found.requires_grad or not torch.is_grad_enabled()
        return found if traced else found + self._nothing(_device(self.denoiser.network)).values.sum()

    def read(self, what: str, media: Mapping[str, Medium]) -> dict[str, object]:
        """What a frozen part gives of each medium, by digest: once per step, and once at all where a cache is kept."""
        return read(self.denoiser, what, media, self.memo, self.modality)

    def precompute(self, batch: Batch) -> None:
        assert self.memo is not None
        assert self.memo.cache is not None
        segments = [one for one in batch.segments if one.decoder == self.modality]
        prompts = [batch.media[one.given] for one in segments if one.given is not None]
        prompts += [self.denoiser.without(one) for one in prompts]
        scored = [batch.media[one.digest] for one in segments if one.digest is not None]
        latents = self.read(LATENTS, missing(self.denoiser, LATENTS, scored, self.memo.cache))
        self._check(cast("dict[str, Tensor]", latents), segments, batch)
        self.read(CONDITIONS, missing(self.denoiser, CONDITIONS, prompts, self.memo.cache))

    def release(self) -> None:
        if self.memo is not None and self.memo.cache is not None:
            for reader in self.denoiser.readers.values():
                self.memo.cache.learn(reader)
        self.denoiser.release()

    def restore(self, device: torch.device | None = None) -> None:
        self.denoiser.restore(device)

    def _given(self, row: _Row, draws: Draws, media: dict[str, Medium]) -> _Row:
        """A draw with what conditions it, which is added to the media where it is nothing."""
        segment = row.segment
        if (segment.condition is not None or segment.before) and self.conditioner is not None:
            dropped = draws.drops(segment.key, row.draw)
            return replace(row, given=_NOTHING if dropped else _states_of(row.number))
        if segment.given is None:
            raise ModelError(
                f"nothing says what this {self.modality} was asked to be",
                got="a segment without a prompt",
                fix="use the preparer of the model's own assembly",
            )
        given = media[segment.given]
        if draws.drops(segment.key, row.draw):
            given = self.denoiser.without(given)
            media[given.digest] = given
        return _Row(number=row.number, segment=segment, draw=row.draw, given=given.digest)

    def _states(self, states: Tensor | None, rows: Sequence[_Row], layout: Layout) -> dict[str, Condition]:
        """What states say of each segment that is conditioned by some, and what stands for nothing."""
        asked = {row.number: row.segment for row in rows if row.segment.condition is not None or row.segment.before}
        if self.conditioner is None or not asked:
            return {}
        if states is None:
            raise ModelError(
                f"what conditions this {self.modality} are states of a backbone",
                got="a model without a backbone",
                fix="give it one",
            )
        found = self.conditioner(self.given(states, list(asked.values()), layout))
        said: dict[str, Condition] = {
            _states_of(number): {name: value[at] for name, value in found.items()} for at, number in enumerate(asked)
        }
        return said | ({_NOTHING: self.conditioner.nothing()} if any(row.given == _NOTHING for row in rows) else {})

    def given(self, states: Tensor, segments: Sequence[Segment], layout: Layout) -> Tensor:
        """What the conditioner reads for each segment, ``b k d``, of a backbone's states ``r n d``."""
        assert self.conditioner is not None
        found: list[Tensor] = []
        for one in segments:
            if one.condition is None:
                before = torch.tensor(one.before, device=states.device)
                found.append(self.conditioner.filled(states[one.row].index_select(0, before)))
            else:
                span = layout.spans[one.condition]
                found.append(states[span.row, span.start : span.stop])
        return torch.stack(found)

    def _errors(
        self,
        rows: Sequence[_Row],
        time: Tensor,
        latents: Mapping[str, Tensor],
        conditions: Mapping[str, Condition],
        draws: Draws,
    ) -> Tensor:
        """Weighted squared errors, ``b`` in float64, of rows whose tensors have the same shapes."""
        process, device = self.denoiser.process, time.device
        clean = torch.stack([latents[_digest(row)].to(device, torch.float32) for row in rows])
        shape = tuple(clean.shape[1:])
        noise = torch.stack([draws.noise(row.segment.key, row.draw, shape) for row in rows]).to(device)
        condition = _together([conditions[row.given] for row in rows], device)
        noisy, target = process.noised(clean, noise, time)
        del clean, noise  # a target is all that is kept of them until the backward pass
        prediction = self.denoiser(noisy, time, condition)
        if any(row.segment.spans for row in rows):
            # roots, since they are squared; float64, since a share of bfloat16 has three digits
            shares = torch.broadcast_tensors(*(self._shares(row.segment, shape) for row in rows))
            roots = torch.stack(shares).sqrt().to(device)
            prediction, target = prediction.double() * roots, target.double() * roots
        errors = squared_error(prediction, target)
        return errors * process.weight(time, draws.weighting)

    def _shares(self, segment: Segment, shape: Sequence[int]) -> Tensor:
        """How much of each latent is scored, to be multiplied with latents ``...`` of this shape."""
        if segment.spans:
            return self.denoiser.timeline.weights(segment.spans, shape)
        return torch.ones([1] * len(shape), dtype=torch.float64)

    def _dims(self, segment: Segment, shape: Sequence[int]) -> float:
        """Dimensions that are scored; of a latent that is scored in part, that part."""
        if not segment.spans:
            return math.prod(shape)
        return self._shares(segment, shape).expand(tuple(shape)).sum().item()

    def _nothing(self, device: torch.device) -> Units:
        """No units, yet differentiable: a process that waits for gradients must not wait for ever."""
        zero = torch.zeros(0, dtype=torch.float64, device=device)
        beside = [] if self.conditioner is None else self.conditioner.parameters()
        for value in (*self.denoiser.network.parameters(), *beside):
            if value.requires_grad:
                zero = zero + value.reshape(-1)[:1].sum().double() * 0.0
        return Units(kind=self.kind, values=zero, segment=torch.zeros(0, dtype=torch.long, device=device), dims=None)

    def _check(self, latents: Mapping[str, Tensor], segments: Sequence[Segment], batch: Batch) -> None:
        if not latents:
            return
        finite = torch.stack([values.isfinite().all() for values in latents.values()])
        if bool(finite.all()):  # the only word from the device to the host, whatever the batch holds
            return
        for segment in segments:
            values = latents.get(segment.digest or "")
            if values is not None and not bool(values.isfinite().all()):
                wrong = int((~values.isfinite()).sum())
                raise DataError(
                    f"the latents of this {self.modality} are not finite",
                    field=self.modality,
                    got=f"{wrong} of {values.numel()} values are NaN or infinite, of "
                    f"{batch.ids[segment.response] if batch.ids else 'a response'}",
                    fix="load the model in float32 (its autoencoder may overflow in float16), or remove the row",
                )


def _states_of(number: int) -> str:
    """The name of what states say of a segment."""
    return f"states of {number}"


def _digest(row: _Row) -> str:
    assert row.segment.digest is not None
    return row.segment.digest


def _of(media: Mapping[str, Medium], digests: Iterable[str]) -> dict[str, Medium]:
    return {digest: media[digest] for digest in dict.fromkeys(digests)}


def _alike(rows: Sequence[_Row], latents: Mapping[str, Tensor], conditions: Mapping[str, Condition]) -> list[list[int]]:
    """Places of the rows whose tensors can be stacked, in groups."""
    groups: dict[object, list[int]] = {}
    for place, row in enumerate(rows):
        shapes = tuple((name, tuple(one.shape)) for name, one in sorted(conditions[row.given].items()))
        groups.setdefault((tuple(latents[_digest(row)].shape), shapes), []).append(place)
    return list(groups.values())


def _together(conditions: Sequence[Condition], device: torch.device) -> dict[str, Tensor]:
    """Conditions with a batch axis; one that all rows share is expanded and not copied."""
    first = conditions[0]
    if all(one is first for one in conditions):
        return {name: value.to(device)[None].expand(len(conditions), *value.shape) for name, value in first.items()}
    return {name: torch.stack([one[name].to(device) for one in conditions]) for name in first}


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
