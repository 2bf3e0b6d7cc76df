"""Reference scores that are computed once: a number for each draw, kept by what the draw was made for.

u units, k draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias, cast, final

import torch
from torch import Tensor

from modalign.batch import Batch, Segment
from modalign.draws import Draws
from modalign.errors import ConfigError
from modalign.roles import Decoder
from modalign.scores import Scores, Units
from modalign.training.reference import Policy, Scorer

_Key: TypeAlias = tuple[object, ...]


@final
class Remembered(Scorer):
    """A scorer whose draws are the same in every epoch, so that it has to be asked once about each segment.

    A batch of which anything is new, here or in another process, is asked about whole: what is kept was then computed
    beside the policy's own scores of the same batch, and equals them bit for bit while the weights do.

    inner: is asked about what is not known.
    policy: whose decoders say what units are.
    """

    def __init__(self, inner: Scorer, policy: Policy) -> None:
        self.inner, self.policy = inner, policy
        for name, decoder in policy.model.decoders.items():
            if cast(Decoder, decoder).kind != "draw":
                raise ConfigError(
                    "only scores that are draws can be kept",
                    where="cache_reference",
                    got=f"the decoder {name!r} gives units of kind {cast(Decoder, decoder).kind}",
                    fix="leave cache_reference out",
                )
        self._known: dict[_Key, tuple[Tensor, float]] = {}  # k float64 on the CPU, and the dimensions of each
        self.asked = 0  #: batches that the inner scorer was asked about

    @torch.no_grad()
    def scores(self, batch: Batch, draws: Draws) -> Scores:
        if draws.epoch is not None:
            msg = "draws that differ from epoch to epoch cannot be kept"
            raise ValueError(msg)
        keys = [_key(segment, draws) for segment in batch.segments]
        if self._anywhere(not all(key in self._known for key in keys)):
            self.asked += 1
            found = self.inner.scores(batch, draws)
            self._keep(found, keys)
            return found
        return self._recall(batch, keys)

    def tensors(self) -> dict[str, Tensor]:
        return self.inner.tensors()

    def load(self, tensors: dict[str, Tensor]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.inner.load(tensors)

    def _anywhere(self, new: bool) -> bool:
        """Whether anything is new to any process: where one asks a wrapped model, all have to, or it waits for ever."""
        accelerator = self.policy.accelerator
        if accelerator.num_processes == 1:
            return new
        said = torch.tensor(float(new), device=accelerator.device)
        return bool(cast(Tensor, accelerator.reduce(said, reduction="sum")) > 0)

    def _keep(self, scores: Scores, keys: Sequence[_Key]) -> None:
        for units in scores.units.values():
            values, owners = units.values.detach().double().cpu(), units.segment.cpu()
            for number in owners.unique().tolist():
                mine = owners == number
                dims = 0 if units.dims is None else units.dims.cpu()[mine][0].item()
                self._known[keys[number]] = (values[mine], dims)

    def _recall(self, batch: Batch, keys: Sequence[_Key]) -> Scores:
        units: dict[str, Units] = {}
        device = batch.device
        for name in dict.fromkeys(segment.decoder for segment in batch.segments):
            numbers = [number for number, segment in enumerate(batch.segments) if segment.decoder == name]
            known = [self._known[keys[number]] for number in numbers]
            counts = torch.tensor([len(values) for values, _ in known])
            units[name] = Units(
                kind="draw",
                values=torch.cat([values for values, _ in known]).to(device),
                segment=torch.tensor(numbers).repeat_interleave(counts).to(device),
                dims=torch.tensor([dims for _, dims in known]).repeat_interleave(counts).to(device),
            )
        return Scores(
            units=units,
            response=torch.tensor([one.response for one in batch.segments], dtype=torch.long, device=device),
            weight=torch.tensor([one.weight for one in batch.segments], dtype=torch.float64, device=device),
            responses=batch.responses,
        )


def _key(segment: Segment, draws: Draws) -> _Key:
    """What a segment's draws and their errors depend on, but for weights."""
    return (segment.key, segment.decoder, segment.digest, segment.given, segment.spans, replace(draws, epoch=None))
