"""A model before the oracle: every prompt is answered, each by draws of its own, and every answer judged."""

from __future__ import annotations

import pytest

from modalign.config import DataConfig
from modalign.content import Message, Part, Response
from modalign.errors import DataError
from modalign.registry import registry
from modalign.world import answer, data, examine, questioned


class Pupil:
    """Answers every question rightly, but one of three with silence."""

    def __init__(self):
        self.seeds = []

    def generate(self, prompts, *, seed, **settings):
        self.seeds += [seed] * len(prompts)
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt):
        part, words = prompt[0].parts
        concept = registry.depiction(part.modality).read(part)
        names = questioned(words.value)
        assert concept is not None
        assert names is not None
        text = answer(concept, names) if len(self.seeds) % 3 else "hm"
        return Response(messages=(Message(role="assistant", parts=(Part(modality="text", value=text),)),))


def test_every_answer_is_judged_and_no_two_are_drawn_by_the_same_numbers():
    rows = data(DataConfig(path="oracle", split="about/video/prompts-test", limit=9))
    pupil = Pupil()
    found = examine(pupil, rows, seed=2)  # type: ignore[arg-type]
    assert len(found.responses) == found.measure.accuracy.count == 9
    assert found.measure.accuracy.hits == 6
    assert found.measure.unreadable.hits == 3
    assert len(set(pupil.seeds)) == 9
    other = Pupil()
    examine(other, rows, seed=3)  # type: ignore[arg-type]
    assert not set(pupil.seeds) & set(other.seeds)


def test_a_row_that_nobody_can_judge_is_named():
    (row,) = data(DataConfig(path="oracle", split="about/video/prompts-test", limit=1))
    dark = Part(modality="video", value=row.prompt[0].parts[0].value * 0)  # type: ignore[operator]
    prompt = (Message(role="user", parts=(dark, row.prompt[0].parts[1])),)

    class Mute:
        def generate(self, prompts, **settings):
            return [Response(messages=(Message(role="assistant", parts=()),)) for _ in prompts]

    from dataclasses import replace

    with pytest.raises(DataError, match="cannot judge an answer to oracle/about/video/prompts-test/0/0"):
        examine(Mute(), [replace(row, prompt=prompt)])  # type: ignore[arg-type]
