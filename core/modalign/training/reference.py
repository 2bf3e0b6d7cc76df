"""Whose scores an objective compares: the policy being trained, and the reference it is measured against."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, final

import torch
from torch import Tensor, nn

from modalign.batch import Batch
from modalign.caching.fingerprint import fingerprint
from modalign.decoders.backprop import Backprop
from modalign.draws import Draws
from modalign.errors import CheckpointError, ConfigError
from modalign.model import Model
from modalign.scores import Scores

if TYPE_CHECKING:
    from accelerate import Accelerator

REFERENCE = "reference"
POLICY = "policy"


class Scorer(ABC):
    """One role that scores can have."""

    @abstractmethod
    def scores(self, batch: Batch, draws: Draws) -> Scores:
        """Scores of a batch; the scorers of a comparison share their draws."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must keep so that a resumed run scores alike."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:  # noqa: B027 - most scorers keep nothing
        """Take back what `tensors` gave."""


@final
class Policy(Scorer):
    """The model being trained, called through accelerate's wrapper only, so that its hooks see everything."""

    def __init__(self, model: Model, accelerator: Accelerator) -> None:
        self.model, self.accelerator = model, accelerator
        if not accelerator.verify_device_map(model):
            model.to(accelerator.device)
        self._wrapped: nn.Module | None = None

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Within it the model is wrapped for autocast and several processes; after it, it is as it was."""
        if self._wrapped is not None:
            yield
            return
        with keeping_modes(self.model):
            self._wrapped = self.accelerator.prepare_model(self.model)
            try:
                yield
            finally:
                self._wrapped = None
                self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
                # accelerate leaves marks by which a second run would take the bare model for a wrapped one
                for mark in ("forward", "_original_forward", "_is_accelerate_prepared"):
                    self.model.__dict__.pop(mark, None)
                # it also keeps the optimizer, whose moments are twice the trained weights
                self.accelerator._models.clear()
                self.accelerator._optimizers.clear()

    @property
    def wrapped(self) -> nn.Module:
        """What is called instead of the model."""
        if self._wrapped is None:
            msg = "the policy scores within `prepared()` only"
            raise RuntimeError(msg)
        return self._wrapped

    def scores(self, batch: Batch, draws: Draws) -> Scores:
        found = self.wrapped(batch, draws)
        assert isinstance(found, Scores)
        return found


@final
class Rollouts(Scorer):
    """The policy, scored by the reward of media that it makes, through whose last steps the gradient reaches it."""

    def __init__(self, policy: Policy, backprop: Backprop) -> None:
        self.policy, self.backprop = policy, backprop
        if isinstance(backprop.reward, nn.Module):
            backprop.reward.to(policy.accelerator.device)

    def scores(self, batch: Batch, draws: Draws) -> Scores:
        found = self.policy.wrapped(batch, draws, self.backprop)
        assert isinstance(found, Scores)
        return found


@final
class AdaptersOff(Scorer):
    """The policy without its adapters, and with what else trains (connectors, heads) as it was at the start."""

    def __init__(self, policy: Policy) -> None:
        adapters = policy.model.assembly.adapters
        if adapters is None:
            raise ConfigError(
                "this model has no adapters that could be switched off",
                where="reference",
                got="adapters_off",
                fix="use reference: copy, or train adapters (model.adapter)",
            )
        self.policy, self.adapters = policy, adapters
        own = {id(parameter) for parameter in adapters.parameters()}
        rest = {name: value for name, value in policy.model.trainable().items() if id(value) not in own}
        self._live = rest
        self._frozen = {name: value.detach().clone() for name, value in rest.items()}

    @torch.no_grad()
    def scores(self, batch: Batch, draws: Draws) -> Scores:
        with evaluating(self.policy.model), self._swapped(), self.adapters.off():
            return self.policy.scores(batch, draws)

    def tensors(self) -> dict[str, Tensor]:
        return self._frozen

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in self._frozen.items():
            value.copy_(tensors[name])

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        """Within it the frozen copies stand in: pointers are exchanged, nothing is copied or rounded."""
        before = {name: value.data for name, value in self._live.items()}
        for name, value in self._live.items():
            value.data = self._frozen[name]
        try:
            yield
        finally:
            for name, value in self._live.items():
                value.data = before[name]


@final
class FrozenCopy(Scorer):
    """A second model that never trains."""

    def __init__(self, policy: Policy) -> None:
        model = policy.model
        # the assembly prepares and saves, and what is frozen gives what it gave: a copy that only scores shares both
        towers = [*_frozen(model.encoders), *_frozen(model.decoders)]
        # with what is inside: a pipeline knows its parts by themselves
        shared = (model.assembly, *(module for tower in towers for module in tower.modules()))
        self.model: Model = copy.deepcopy(model, {id(one): one for one in shared})
        self.model.requires_grad_(False).eval()
        self.accelerator = policy.accelerator
        self._trained = tuple(model.trainable())

    @torch.no_grad()
    def scores(self, batch: Batch, draws: Draws) -> Scores:
        with self.accelerator.autocast():
            return self.model(batch, draws)

    def tensors(self) -> dict[str, Tensor]:
        # the weights are the model's that the run starts from: a checkpoint keeps their fingerprint, not a second model
        parameters = dict(self.model.named_parameters())
        print_ = fingerprint({name: parameters[name] for name in self._trained})
        return {"fingerprint": torch.tensor(list(bytes.fromhex(print_)), dtype=torch.uint8)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        if not tensors["fingerprint"].cpu().equal(self.tensors()["fingerprint"]):
            raise CheckpointError(
                "the reference of the checkpoint is another model",
                got="other weights than the run started from",
                fix="load the model that the run started from; the checkpoint brings the trained weights itself",
            )


def _frozen(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules in which nothing trains."""
    for child in module.children():
        own = list(child.parameters())
        # an encoder may read a table that trains, though nothing in it does
        if own and not any(value.requires_grad for value in own) and getattr(child, "frozen", True):
            yield child
        else:
            yield from _frozen(child)


def make_scorers(
    policy: Policy, roles: Sequence[str], how: Literal["auto", "adapters_off", "copy"]
) -> dict[str, Scorer]:
    """A scorer for each role that an objective compares; the reference is the policy as it is now.

    how: where the reference's scores come from; `auto` prefers adapters that are switched off.
    """
    if unknown := [role for role in roles if role not in (POLICY, REFERENCE)]:
        raise ConfigError(
            f"the objective needs scores of the role {unknown[0]!r}",
            got=f"roles the trainer has: {POLICY}, {REFERENCE}",
            fix="use an objective that compares policy and reference",
        )
    scorers: dict[str, Scorer] = {POLICY: policy}
    if REFERENCE in roles:
        copied = how == "copy" or (how == "auto" and policy.model.assembly.adapters is None)
        scorers[REFERENCE] = FrozenCopy(policy) if copied else AdaptersOff(policy)
    return scorers


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the model is in evaluation mode, and after it every module is in the mode it was in."""
    with keeping_modes(model):
        model.eval()
        yield


@contextmanager
def keeping_modes(model: nn.Module) -> Iterator[None]:
    """After it every module is in the mode it was in: those of one model need not agree."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def score_roles(scorers: Mapping[str, Scorer], batch: Batch, draws: Draws) -> dict[str, Scores]:
    """Scores by role, the policy's last: no other role's activations live beside its graph."""
    order = sorted(scorers, key=lambda role: role == POLICY)
    return {role: scorers[role].scores(batch, draws) for role in order}
