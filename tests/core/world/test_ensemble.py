"""What the demonstration over all modalities concludes from what the oracle saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalign.describing import Description
from modalign.world.concept import Concept
from modalign.world.ensemble import Ensemble, EnsembleConfig, EnsembleStage
from modalign.world.harmony import Seen
from modalign.world.together import Script

ASKED = Script(parts=(("words", Concept(count=2)), ("sound", Concept(count=2))))


def stage(name: str, right: int, *, of: int = 100, selected: bool = True) -> EnsembleStage:
    """A stage of which some responses are right, the others wrong in the sound."""
    found = ("words", "sound") if selected else ("sound", "words")
    seen = tuple(
        Seen(
            asked=ASKED, found=found, shown={"words": Concept(count=2), "sound": Concept(count=2 if at < right else 1)}
        )
        for at in range(of)
    )
    return EnsembleStage(name=name, folder=Path(name), responses=(), seen=seen, seconds=1.0)


def ensemble(before: int, dpo: int, control: int) -> Ensemble:
    return Ensemble(
        config=EnsembleConfig(),
        prompts=(),
        examples=(),
        before=stage("before", before),
        dpo=stage("dpo", dpo),
        control=stage("control", control),
        description=Description(parts=(), edges=()),
    )


def test_a_gain_is_that_of_the_same_requests() -> None:
    before, after = stage("before", 40), stage("dpo", 60)
    assert after.gain(before, "sound")[0] == pytest.approx(0.2)
    assert after.gain(before, "agreement")[0] == pytest.approx(0.2)
    assert after.gain(before, "words") == (0.0, 0.0, 0.0)
    assert stage("dpo", 60, selected=False).gain(before, "whole")[0] == pytest.approx(-0.4)


def test_dpo_wins_where_it_beats_the_start_and_the_control_beyond_chance() -> None:
    won = ensemble(40, 60, 20)
    assert won.won
    assert won.verdict.startswith("One preference over all modalities helped, imitation did not: all right at once")
    assert "Of 4 measures taken by themselves, these rose beyond chance: agreement, sound." in won.verdict
    assert not ensemble(40, 41, 20).won  # 1.96 sqrt(.01 - .01^2) / 10 = .0195, more than the .01 gained
    assert not ensemble(40, 60, 60).won
    assert "did NOT beat" in ensemble(40, 30, 20).verdict
    assert "Of 4 measures taken by themselves, these rose beyond chance: none." in ensemble(40, 40, 20).verdict
    assert won.seconds == 3.0
