"""One optimizer step: score, loss, backward over micro-batches; then look at it before a parameter changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW, Optimizer

from modalign.batch import Batch
from modalign.draws import Draws
from modalign.errors import NumericError, ResourceError
from modalign.failpoints import hit
from modalign.objectives.base import Loss, Mean, Objective
from modalign.scores import Scores
from modalign.training.loader import MicroBatch
from modalign.training.metrics import Sums, Total
from modalign.training.numeric import Seen, raise_numeric
from modalign.training.optimizer import schedule, set_learning_rate
from modalign.training.parts import Parts
from modalign.training.ranks import Ranks
from modalign.training.reference import score_roles


@final
@dataclass(frozen=True, kw_only=True)
class Report:
    """What one step came to, over all processes.

    totals: metrics in two parts.
    learning_rate: it used.
    samples, tokens: it took.
    stop: whether any process was asked to stop.
    """

    totals: Mapping[str, Total]
    learning_rate: float
    samples: int
    tokens: int
    stop: bool


def scored_tokens(batch: Batch) -> Tensor:
    """Tokens of each response that are scored, ``a`` in float64: what `Scores.counts` will be."""
    weights = torch.tensor([segment.weight != 0 for segment in batch.segments], dtype=torch.float64)
    owners = torch.tensor([segment.response for segment in batch.segments], dtype=torch.long)
    counts = torch.zeros(batch.responses, dtype=torch.float64)
    for units in batch.units.values():
        segment = units.segment.cpu()
        counts.index_add_(0, owners[segment], weights[segment])
    return counts


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed everything random by what the step is, so that a resumed run needs no stored state, on any topology."""
    from accelerate.utils import set_seed

    keyed = hashlib.blake2b(repr((seed, step, rank, "step")).encode(), digest_size=4).digest()
    set_seed(int.from_bytes(keyed, "little"))


def take_loss(
    objective: Objective,
    scores: Mapping[str, Scores],
    batch: Batch,
    ranks: Ranks,
    known: Mapping[str, Mean] | None = None,
) -> Loss:
    """The loss of a micro-batch, its batch statistics those of all processes.

    known: statistics of the whole step, where they were taken ahead.
    """
    if known is None:
        known = ranks.add_means(objective.statistics(scores, batch.targets))
    return objective(scores, batch.targets, known)


@final
class Stepper:
    """Takes optimizer steps. Its collectives are the same on every process, whatever their samples hold."""

    def __init__(self, parts: Parts, optimizer: AdamW, folder: Path) -> None:
        self.parts, self.objective, self.config, self.ranks = parts, parts.objective, parts.config, parts.ranks
        self.optimizer, self.folder = optimizer, folder
        self.accelerator = parts.ranks.accelerator
        self._prepared: Optimizer = self.accelerator.prepare_optimizer(optimizer)
        self._parameters = list(parts.model.trainable().values())

    def __call__(self, step: int, position: int, epoch: int, micro: Sequence[MicroBatch], *, stop: bool) -> Report:
        """Take one step.

        step: counted from 0.
        position: its first sample in the data's order.
        epoch: of that sample; one epoch for the whole step, however it is split.
        stop: whether this process was asked to stop.
        """
        seed_step(self.config.seed, step, self.ranks.rank)
        draws = Draws.of(self.config.draws, seed=self.config.seed, epoch=None if self.config.cache_reference else epoch)
        rate = set_learning_rate(self.optimizer, schedule(self.config, step, self.parts.plan.steps))
        with _memory(step, micro), self.parts.model.memo.remembering():
            sums, seen = self._backward(micro, draws)
        self._count(sums, micro)
        norm = self._gradient_norm()
        good = all(bool(one.loss.isfinite()) for one in seen)
        overflow = good and self.accelerator.scaler is not None and not bool(norm.isfinite())
        # a step that fp16 will skip has no norm: counted as 0 it would draw the window's mean down
        sums.add("grad_norm", torch.zeros_like(norm) if overflow else norm, torch.full_like(norm, not overflow))
        flags = {
            "_bad": float(not good or not (overflow or bool(norm.isfinite()))),
            "_stop": float(stop),
            "_samples": float(sum(one.samples for one in micro)),
            "_tokens": float(sum(one.tokens for one in micro)),
        }
        one = torch.ones((), dtype=torch.float64, device=self.ranks.device)
        for name, value in flags.items():
            sums.add(name, one * value, one)
        totals = self.ranks.total(sums.found)
        bad, stopped, samples, tokens = (totals.pop(name)[0] for name in flags)
        if bad:
            raise_numeric(
                seen,
                self.parts.model,
                self.ranks,
                self.folder,
                step=step + 1,
                position=position,
                seed=self.config.seed,
            )
        with _memory(step, micro):  # the first step makes the moments
            self._update(norm)
        return Report(totals=totals, learning_rate=rate, samples=int(samples), tokens=int(tokens), stop=bool(stopped))

    def _backward(self, micro: Sequence[MicroBatch], draws: Draws) -> tuple[Sums, list[Seen]]:
        """Gradients of the step's loss: a sum over all micro-batches and processes, divided by the global count."""
        self.optimizer.zero_grad(set_to_none=True)
        # what the loss is divided by is known before the first forward pass
        counts = [self.objective.count(one.batch.targets, scored_tokens(one.batch)) for one in micro]
        count = float(self.ranks.add(torch.stack(counts).sum().to(self.ranks.device)))
        known = self._statistics(micro, draws)
        sums, seen = Sums(), []
        for number, one in enumerate(micro):
            last = number == len(micro) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.parts.policy.wrapped):
                hit("forward")
                batch = one.batch.to(self.ranks.device)
                scores = score_roles(self.parts.scorers, batch, draws)
                loss = take_loss(self.objective, scores, batch, self.ranks, known)
                sums.add("loss", loss.sum, loss.count)
                sums.extend(loss.metrics)
                seen.append(Seen.of(one, scores, loss.sum))
                hit("backward")
                # a micro-batch may reach nothing that trains: words alone, where only an encoder does
                if loss.sum.requires_grad or (last and self.ranks.world > 1):
                    # wrapped for several processes, a model takes the mean of gradients: times their number is the sum
                    self.accelerator.backward(loss.sum * (self.ranks.world / (count or 1.0)))
        return sums, seen

    def _count(self, sums: Sums, micro: Sequence[MicroBatch]) -> None:
        """How many media each kind of tower was run on in this step, and how many there were."""
        passes = self.parts.model.memo.take()
        one = torch.ones((), dtype=torch.float64, device=self.ranks.device)
        for name in self.parts.model.encoders:
            there = {digest for each in micro for digest, medium in each.batch.media.items() if medium.modality == name}
            # a sum over processes, and a mean over steps
            sums.add(f"encoder/{name}/passes", one * passes[name], one / self.ranks.world)
            sums.add(f"encoder/{name}/media", one * len(there), one / self.ranks.world)

    def _statistics(self, micro: Sequence[MicroBatch], draws: Draws) -> Mapping[str, Mean] | None:
        """Batch statistics of the whole step, so that the loss is the same however the step is split.

        None where one micro-batch is all there is, or the objective has none: then nothing is computed twice.
        """
        if len(micro) == 1 or type(self.objective).statistics is Objective.statistics:
            return None
        found = Sums()
        with torch.no_grad():
            for one in micro:
                batch = one.batch.to(self.ranks.device)
                found.extend(self.objective.statistics(score_roles(self.parts.scorers, batch, draws), batch.targets))
        return self.ranks.add_means({name: Mean(sum=pair[0], count=pair[1]) for name, pair in found.found.items()})

    def _gradient_norm(self) -> Tensor:
        self.accelerator.unscale_gradients(self._prepared)
        return get_total_norm([value.grad for value in self._parameters if value.grad is not None]).to(
            self.ranks.device
        )

    def _update(self, norm: Tensor) -> None:
        if self.config.max_grad_norm and bool(norm.isfinite()):
            clip_grads_with_norm_(self._parameters, self.config.max_grad_norm, norm)
        hit("optimizer-step")
        self._prepared.step()  # with fp16 it skips a step whose scaled gradients overflowed, and lowers the scale
        scaler = self.accelerator.scaler
        if scaler is not None and scaler.get_scale() < 1.0:
            raise NumericError(
                "gradients overflow fp16 at every scale",
                got=f"a loss scale of {scaler.get_scale():g}",
                fix="use mixed_precision=bf16, or a smaller learning_rate",
            )


@contextmanager
def _memory(step: int, micro: Sequence[MicroBatch]) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(step, micro, error) from error


def _out_of_memory(step: int, micro: Sequence[MicroBatch], error: Exception) -> ResourceError:
    widest = max(micro, key=lambda one: one.batch.layout.longest)
    rows, width = widest.batch.tokens.shape
    return ResourceError(
        f"out of memory in step {step + 1}",
        where=", ".join(widest.ids[:4]),
        got=f"{rows} rows of {width} tokens, the longest sample of {widest.batch.layout.longest}; "
        + str(error).splitlines()[0],
        fix="lower per_device_train_batch_size (and raise gradient_accumulation_steps by as much), set "
        "model.gradient_checkpointing, or lower data.max_length",
    )
