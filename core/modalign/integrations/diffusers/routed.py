"""A pipeline's own sampling with a graph: through which of its steps, and from which it leaps to what is clean.

b samples.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial, wraps
from typing import Protocol, cast, final

import torch
from torch import Tensor, nn

from modalign.decoders.backprop import Route
from modalign.integrations.diffusers.family import Family


class _Stepping(Protocol):
    """A scheduler of diffusers that samples."""

    timesteps: Tensor

    def set_timesteps(self, *args: object, **kwargs: object) -> None: ...

    def step(self, *args: object, **kwargs: object) -> object: ...


@contextmanager
def routed(family: Family, route: Route) -> Iterator[None]:
    """Within it the pipeline makes a graph of the steps of the route and of its decoding, though it is called without.

    A pipeline is called under `no_grad`: the network's first look at a step switches the graph on where the route has
    one. A leap ends its steps early, with the clean latents that the last of them predicts.
    """
    before = torch.is_grad_enabled()
    scheduler = cast(_Stepping, family.pipe.scheduler)
    walk = _Walk(family, route, scheduler, traced=before)
    handle = family.denoise.register_forward_pre_hook(walk.look)
    for name, method in (("set_timesteps", walk.set_timesteps), ("step", walk.step)):
        # pipelines look at the arguments of these before they give any
        setattr(scheduler, name, wraps(getattr(scheduler, name))(partial(method)))
    try:
        yield
    finally:
        for name in ("set_timesteps", "step"):
            delattr(scheduler, name)
        handle.remove()
        walk.restore()
        torch.set_grad_enabled(before)


@final
class _Walk:
    """Where a pipeline is on a route."""

    def __init__(self, family: Family, route: Route, scheduler: _Stepping, *, traced: bool) -> None:
        self.family, self.route, self.scheduler, self.traced = family, route, scheduler, traced
        self._set, self._step = scheduler.set_timesteps, scheduler.step
        self._signature = inspect.signature(scheduler.step)
        self._whole: Tensor | None = None
        self.done = 0

    @property
    def steps(self) -> int:
        """Of the sampler: some take more than they are asked for."""
        assert self._whole is not None
        return len(self._whole)

    def set_timesteps(self, *args: object, **kwargs: object) -> None:
        self._set(*args, **kwargs)
        self.done, self._whole = 0, self.scheduler.timesteps
        self.scheduler.timesteps = self._whole[: self.route.taken(self.steps)]

    def restore(self) -> None:
        """Give the scheduler all of its times again: once the pipeline has looked at them, it steps by these."""
        if self._whole is not None:
            self.scheduler.timesteps = self._whole

    def look(self, network: nn.Module, inputs: object) -> None:
        self.restore()
        torch.set_grad_enabled(self.traced and self.route.graded(self.done, self.steps))

    def step(self, *args: object, **kwargs: object) -> object:
        last = self.route.leaps(self.done, self.steps)
        clean = self._clean(self._signature.bind(*args, **kwargs).arguments) if last else None
        found = self._step(*args, **kwargs)
        self.done += 1
        if clean is None:
            return found
        if isinstance(found, tuple):
            return (clean, *cast("tuple[object, ...]", found)[1:])
        cast("MutableMapping[str, object]", found)["prev_sample"] = clean
        return found

    def _clean(self, given: dict[str, object]) -> Tensor:
        """What a step's prediction means, seen as the network saw its input: in the latents of its training."""
        noisy, prediction, timestep = (cast(Tensor, given[name]) for name in ("sample", "model_output", "timestep"))
        scale = cast("Callable[[Tensor, Tensor], Tensor] | None", getattr(self.scheduler, "scale_model_input", None))
        seen = noisy if scale is None else scale(noisy, timestep)
        time = torch.as_tensor(self._time(timestep), dtype=torch.float64, device=noisy.device).reshape(-1)
        return self.family.process.clean(seen.float(), prediction.float(), time).to(noisy)

    def _time(self, timestep: Tensor) -> object:
        """The time of the process at a step; of a flow it is the sampler's sigma, which its clock may cut to whole
        numbers."""
        match self.family.process.path:
            case "flow":
                return cast(Tensor, self.scheduler.sigmas)[self.done]  # pyright: ignore[reportAttributeAccessIssue]
            case "table":
                return torch.as_tensor(timestep).double().round()
            case "cosine":
                return timestep
