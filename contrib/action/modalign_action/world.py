"""The oracle world in movements of an arm: it goes one way, and its gripper closes so many times.

t steps, a dimensions.
"""

from __future__ import annotations

from random import Random
from types import MappingProxyType
from typing import ClassVar, Final, cast, final

import torch
from torch import Tensor

from modalign.content import Part
from modalign.roles import Depiction
from modalign.world.concept import VALUES, Concept
from modalign_action.modality import RATE

STEPS, DIMENSIONS = 8, 7  #: of a movement; position, rotation and gripper
HERTZ: Final = 10.0

_WAYS: Final = MappingProxyType({"left": (1, 1), "right": (1, -1), "up": (2, 1), "down": (2, -1)})  #: axis and sign
_PACE: Final = 0.05  #: metres a step
_SLACK: Final = 0.01  #: metres that are free
_GRIPPER: Final = 6
_CLOSED: Final = (1, 3, 5)  #: the steps in which the gripper may close; 1 is closed


@final
class ActionDepiction(Depiction):
    """Movements, ``8 7`` of float32 at 10 Hz: metres along x, y and z, three rotations, and the gripper.

    What a concept leaves open is chosen by the seed, and so is the pace of each step. Reads exactly what it depicts; an
    arm that stands still or goes more than one way, and a gripper that is neither open nor closed, are unreadable.

    >>> arm = ActionDepiction()
    >>> arm.read(arm.depict(Concept(count=2, motion="up"))).key
    'count=2 motion=up'
    """

    modality: ClassVar[str] = "action"
    attributes: ClassVar[frozenset[str]] = frozenset({"count", "motion"})

    def depict(self, concept: Concept, *, seed: int = 0) -> Part:
        random = Random(f"action/{seed}")
        free = {name: random.choice(VALUES[name]) for name in ("count", "motion")}
        whole = Concept.of({**free, **concept.only(self.attributes).said})
        axis, sign = _WAYS[cast(str, whole.motion)]
        moved = torch.zeros(STEPS, DIMENSIONS)
        for step in range(STEPS):
            moved[step, axis] = sign * (_PACE + random.uniform(-_SLACK, _SLACK))
        for step in _CLOSED[: cast(int, whole.count)]:
            moved[step, _GRIPPER] = 1.0
        return Part(modality=self.modality, value=moved, facts={RATE: HERTZ})

    def read(self, part: Part) -> Concept | None:
        moved = part.value
        if not isinstance(moved, Tensor) or moved.shape != (STEPS, DIMENSIONS) or not bool(moved.isfinite().all()):
            return None
        still = moved[:, :_GRIPPER].abs().sum(0) < STEPS * _SLACK
        gripper = moved[:, _GRIPPER]
        closed = gripper > 0.5
        if still.sum() != _GRIPPER - 1 or bool((torch.minimum(gripper.abs(), (gripper - 1).abs()) > 0.25).any()):
            return None
        axis = int((~still).nonzero()[0])
        went = moved[:, axis].sum().item()
        ways = [way for way, (along, sign) in _WAYS.items() if along == axis and sign * went > STEPS * _PACE / 2]
        times = int((closed[1:] & ~closed[:-1]).sum()) + int(closed[0])
        if not ways or times not in VALUES["count"]:
            return None
        return Concept(count=times, motion=ways[0])
