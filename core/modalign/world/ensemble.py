"""A demonstration that one preference aligns every modality of a model: SFT on mistakes, DPO, and what the oracle says.

The start ships with the plugins: towers, a language model and generators that were taught to answer requests for
several modalities, half of them with a medium in the prompt. It learns from examples with mistakes, then from pairs
that share a defect of any part, or of which parts there are. The control imitates the chosen responses of these pairs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from modalign.comparison import Comparison
from modalign.config import Config
from modalign.content import Response
from modalign.describing import Description, describe
from modalign.evaluation.intervals import paired
from modalign.loading import load
from modalign.objectives.base import Objective
from modalign.objectives.dpo import DPO
from modalign.objectives.sft import SFT
from modalign.registry import registry
from modalign.roles import Depiction
from modalign.training import Trainer
from modalign.world.demonstration import Say, checked, one_thread
from modalign.world.harmony import Harmony, Seen, harmony, judge_together, outcomes
from modalign.world.preferences import Kind
from modalign.world.source import words_modality
from modalign.world.together import Together

_ASKED = 1000  #: added to the seed of the prompts that measure: rows of that number are in no training data


@final
class EnsembleConfig(Config):
    """Settings of the demonstration; the defaults were measured, see docs/generators-measured.md."""

    seed: NonNegativeInt = 0
    """Of the data, the training and the sampling."""

    sft_steps: PositiveInt = 150
    """Steps of SFT on examples with mistakes."""

    sft_learning_rate: PositiveFloat = 1e-3
    """Of SFT."""

    dpo_steps: PositiveInt = 120
    """Steps of aligning, and of the control."""

    learning_rate: PositiveFloat = 1e-4
    """Of aligning, and of the control."""

    beta: PositiveFloat = 0.1
    """Of DPO."""

    batch_size: PositiveInt = 16
    """Comparisons per step."""

    samples: PositiveInt = 192
    """Requests the oracle judges responses to."""


@final
@dataclass(frozen=True, kw_only=True)
class EnsembleStage:
    """One model of the demonstration, as the oracle found it.

    name: what it is called: `before`, `dpo`, `control`.
    folder: its run folder.
    responses: to the requests, sampled at temperature 1.
    seen: what the oracle says of each.
    seconds: that training and measuring took.
    """

    name: str
    folder: Path
    responses: tuple[Response, ...]
    seen: tuple[Seen, ...]
    seconds: float

    @property
    def harmony(self) -> Harmony:
        """The rates."""
        return harmony(self.seen)

    def gain(self, over: EnsembleStage, name: str) -> tuple[float, float, float]:
        """How much more often this stage does what was asked than another one, with the 95 % interval.

        name: of `outcomes`.
        """
        mine, theirs = outcomes(self.seen)[name], outcomes(over.seen)[name]
        both = [(one, other) for one, other in zip(theirs, mine, strict=True) if one is not None and other is not None]
        return paired([one for one, _ in both], [other for _, other in both])


@final
@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """What came of it.

    config: the settings.
    prompts: what was asked.
    examples: a few of the preference pairs.
    before, dpo, control: after SFT; after DPO on the pairs; after SFT on their chosen responses. The last two both
        start from the first.
    description: the parts of the model.
    """

    config: EnsembleConfig
    prompts: tuple[Comparison, ...]
    examples: tuple[Comparison, ...]
    before: EnsembleStage
    dpo: EnsembleStage
    control: EnsembleStage
    description: Description

    @property
    def stages(self) -> tuple[EnsembleStage, ...]:
        """All, in order."""
        return self.before, self.dpo, self.control

    @property
    def seconds(self) -> float:
        """Of everything."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def won(self) -> bool:
        """Whether DPO gets everything right more often than the start and than the control, beyond chance."""
        return all(self.dpo.gain(other, "whole")[1] > 0 for other in (self.before, self.control))

    @property
    def verdict(self) -> str:
        """One honest sentence on what was found."""
        before, dpo, control = (f"{100 * stage.harmony.whole.value:.0f} %" for stage in self.stages)
        numbers = f"all right at once: DPO {dpo}, before {before}, imitation of the same chosen responses {control}"
        names = [name for name in outcomes(self.dpo.seen) if name != "whole"]
        up = [name for name in names if self.dpo.gain(self.before, name)[1] > 0]
        also = f" Of {len(names)} measures taken by themselves, these rose beyond chance: {', '.join(up) or 'none'}."
        if self.won:
            return f"One preference over all modalities helped, imitation did not: {numbers}.{also}"
        return f"DPO did NOT beat both the start and the control beyond chance in this run: {numbers}.{also}"


@final
class Rehearsal:
    """Trains and measures stages of one demonstration, in one folder.

    depictions: of the modalities that the model reads and writes.
    """

    def __init__(
        self, folder: Path, config: EnsembleConfig, depictions: Mapping[str, Depiction], *, say: Say, quiet: bool
    ) -> None:
        self.folder, self.config, self.depictions = folder, config, depictions
        self.say, self.quiet = say, quiet
        self.prompts = tuple(self._world(config.seed + _ASKED).rows("prompts", config.samples))
        self._clock = time.perf_counter()
        self._rows: dict[str, Sequence[Comparison]] = {}

    def _world(self, seed: int) -> Together:
        return Together(depictions=self.depictions, words=words_modality(), seed=seed)

    def rows(self, kind: Kind, steps: int) -> Sequence[Comparison]:
        """As many as the steps see once."""
        if kind not in self._rows:
            self._rows[kind] = self._world(self.config.seed).rows(kind, steps * self.config.batch_size)
        return self._rows[kind]

    def sft(self, start: Path) -> EnsembleStage:
        """The start after SFT on examples with mistakes."""
        steps, rate = self.config.sft_steps, self.config.sft_learning_rate
        return self._stage("before", start, SFT(), kind="sft", steps=steps, rate=rate)

    def align(self, name: str, start: Path, objective: Objective) -> EnsembleStage:
        """A model after an objective on the pairs that share a defect."""
        steps, rate = self.config.dpo_steps, self.config.learning_rate
        return self._stage(name, start, objective, kind="shared-defect", steps=steps, rate=rate)

    def _stage(
        self, name: str, start: Path, objective: Objective, *, kind: Kind, steps: int, rate: float
    ) -> EnsembleStage:
        model, config = load(str(start)), self.config
        run = Trainer(
            model=model,
            objective=objective,
            data=self.rows(kind, steps),
            output_dir=self.folder / name,
            max_steps=steps,
            per_device_train_batch_size=config.batch_size,
            learning_rate=rate,
            warmup_steps=10,
            logging_steps=5,
            seed=config.seed,
            quiet=self.quiet,
        ).train()
        responses = model.generate(
            [one.prompt for one in self.prompts],
            temperature=1.0,
            max_new_tokens=40,
            batch_size=96,
            seed=config.seed,
        )
        found = [
            judge_together(row.prompt, one, self.depictions) for row, one in zip(self.prompts, responses, strict=True)
        ]
        seen = tuple(one for one in found if one is not None)
        seconds, self._clock = time.perf_counter() - self._clock, time.perf_counter()
        stage = EnsembleStage(name=name, folder=run.folder, responses=tuple(responses), seen=seen, seconds=seconds)
        self.say(f"     {name}: {_line(stage.harmony)}  ({seconds:.0f} s)")
        return stage


def taught(folder: Path) -> dict[str, Depiction]:
    """Write the start that ships with the plugins; returns the depictions of its modalities, none without a start."""
    every = registry.depictions()
    words = every.get(words_modality())
    if words is None or words.taught(folder) is None:
        return {}
    return {name: one for name, one in every.items() if one is words or one.taught(folder) is not None}


def ensemble_settings(**stated: object) -> EnsembleConfig:
    """Settings by name; a `ConfigError` names the one that is wrong."""
    return checked(EnsembleConfig, stated)


def rehearse(folder: Path, config: EnsembleConfig, *, say: Say, quiet: bool = False) -> Ensemble | None:
    """Run it: three training runs in ``folder``, and what the oracle says after each; None where no start is installed.

    folder: new or empty.
    say: told what happens next.
    quiet: no progress of the training.
    """
    depictions = taught(folder / "start")
    if not depictions:
        return None
    with one_thread():
        stages = Rehearsal(folder, config, depictions, say=say, quiet=quiet)
        say("1/3  teach: the model that ships with modalign learns from examples, half of them with a mistake (SFT)")
        before = stages.sft(folder / "start")
        start = before.folder / "final"
        say("2/3  align: pairs that share a defect of any part, or of which parts there are (DPO)")
        dpo = stages.align("dpo", start, DPO(beta=config.beta))
        say("3/3  control: imitate the chosen responses of the same pairs instead (SFT)")
        control = stages.align("control", start, SFT())
    return Ensemble(
        config=config,
        prompts=stages.prompts,
        examples=tuple(stages.rows("shared-defect", config.dpo_steps)[:3]),
        before=before,
        dpo=dpo,
        control=control,
        description=describe(load(str(start))),
    )


def _line(found: Harmony) -> str:
    each = ", ".join(f"{name} {rate.value:.2f}" for name, rate in found.following.items())
    return (
        f"all right {found.whole}, parts asked for {found.selection.value:.2f}, "
        f"agreement {found.agreement.value:.2f}, {each}"
    )
