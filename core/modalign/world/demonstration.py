"""A demonstration that preferences align a model: teach a tiny one by SFT, align it by DPO, ask the oracle.

The preference pairs share a defect: the chosen response is wrong too, the rejected one is wrong in the same way and in
one more. Imitating the chosen, the control, makes the model worse; only the contrast between the two helps. Where it is
asked for, the model is also aligned on pairs of its own making: its responses, ranked by the oracle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, final

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from modalign.comparison import Comparison
from modalign.config import Config, GenerationConfig
from modalign.content import Response
from modalign.data import read
from modalign.errors import ConfigError, ModelError
from modalign.loading import load
from modalign.model import Model
from modalign.objectives.base import Objective
from modalign.objectives.dpo import DPO
from modalign.objectives.sft import SFT
from modalign.registry import registry
from modalign.training import Trainer
from modalign.training.rollout import sample_pairs
from modalign.world.measure import Measure, Verdict, judge, measure
from modalign.world.source import words_modality

Say = Callable[[str], None]

C = TypeVar("C", bound=Config)


@final
class DemonstrationConfig(Config):
    """Settings of a demonstration; the defaults were measured, see docs/quickstart.md."""

    modality: str | None = None
    """Of the responses; by default words."""

    held_out: bool = True
    """Measure on prompts for concepts that are in no training data; else on new prompts for those that are."""

    seed: NonNegativeInt = 0
    """Of the model, the data, the training and the sampling."""

    sft_steps: PositiveInt = 300
    """Steps of teaching."""

    sft_learning_rate: PositiveFloat = 3e-3
    """Of teaching: the model starts from nothing."""

    sft_rows: PositiveInt = 4096
    """Examples to learn from, 45 % of them with one mistake."""

    dpo_steps: PositiveInt = 80
    """Steps of aligning, and of the control."""

    learning_rate: PositiveFloat = 1.5e-4
    """Of aligning, and of the control."""

    beta: PositiveFloat = 1.0
    """Of DPO."""

    pairs: PositiveInt = 1280
    """Preference pairs that share a defect."""

    batch_size: PositiveInt = 32
    """Comparisons per step."""

    samples: PositiveInt = Field(default=288)
    """Prompts the oracle judges responses to."""

    own_prompts: NonNegativeInt = 0
    """Prompts to each of which the taught model answers four times; the best and the worst answer are a pair of its own
    making. 0 leaves that out."""


@final
@dataclass(frozen=True, kw_only=True)
class Stage:
    """One model of the demonstration, as the oracle found it.

    name: what it is called: `before`, `dpo`, `control`, `own`.
    folder: its run folder.
    responses: to the prompts, sampled at temperature 1.
    measure: what the oracle says of them.
    seconds: that training and measuring took.
    """

    name: str
    folder: Path
    responses: tuple[Response, ...]
    measure: Measure
    seconds: float


@final
@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """What came of it.

    config: the settings.
    prompts: what was asked.
    examples: a few of the preference pairs the model was shown.
    before, dpo, control: after SFT; after DPO on the pairs; after SFT on the chosen responses of the same pairs. The
        last two both start from the first.
    parameters: of the model.
    own: after DPO on pairs of its own making, from the first too; None where that was not asked for.
    """

    config: DemonstrationConfig
    prompts: tuple[Comparison, ...]
    examples: tuple[Comparison, ...]
    before: Stage
    dpo: Stage
    control: Stage
    parameters: int
    own: Stage | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All there are, in order."""
        found = (self.before, self.dpo, self.control)
        return found if self.own is None else (*found, self.own)

    @property
    def seconds(self) -> float:
        """Of everything."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def won(self) -> bool:
        """Whether DPO is better than the start and than the control, beyond their 95 % intervals."""
        least = self.dpo.measure.accuracy.low
        return least > self.before.measure.accuracy.high and least > self.control.measure.accuracy.high

    @property
    def verdict(self) -> str:
        """One honest sentence on what was found."""
        before, dpo, control = (f"{100 * stage.measure.accuracy.value:.0f} %" for stage in self.stages[:3])
        numbers = f"DPO {dpo}, before {before}, imitation of the same chosen responses {control}"
        if self.won:
            return f"The contrast helped, imitation did not: {numbers}."
        if self.dpo.measure.accuracy.value > max(
            self.before.measure.accuracy.value, self.control.measure.accuracy.value
        ):
            return f"DPO is ahead, but within the 95 % intervals, so this run does not show that it helped: {numbers}."
        return f"DPO did NOT beat both the start and the control in this run: {numbers}."


def settings(**stated: object) -> DemonstrationConfig:
    """Settings by name, the others those of the modality's lesson; a `ConfigError` names the one that is wrong."""
    modality = stated.get("modality")
    usual = registry.depiction(modality).lesson if isinstance(modality, str) else {}
    return checked(DemonstrationConfig, {**usual, **stated})


def checked(kind: type[C], stated: Mapping[str, object]) -> C:
    """Settings by name; a `ConfigError` names the one that is wrong."""
    try:
        return kind.model_validate(stated)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            first["msg"], where=".".join(str(part) for part in first["loc"]), got=repr(first["input"]), fix="correct it"
        ) from error


def demonstrate(folder: Path, config: DemonstrationConfig, *, say: Say, quiet: bool = False) -> Demonstration:
    """Run it: three training runs in ``folder``, and what the oracle says after each.

    folder: new or empty.
    say: told what happens next.
    quiet: no progress of the training.
    """
    seed = str(config.seed)
    with one_thread():
        clock = time.perf_counter()
        last = 4 if config.own_prompts else 3
        say(f"1/{last}  teach: a tiny model learns the oracle world from examples, 45 % of them with a mistake (SFT)")
        student = _student(folder / "student", config)
        of = "" if config.modality is None else f"{config.modality}/"
        rows = min(config.sft_rows, config.sft_steps * config.batch_size)  # none that no step would see
        taught = read("oracle", split=f"{of}sft", limit=rows, revision=seed)
        rows = min(config.pairs, config.dpo_steps * config.batch_size)
        pairs = read("oracle", split=f"{of}shared-defect", limit=rows, revision=seed)
        asked = f"{of}prompts{'-test' if config.held_out else ''}"
        prompts = tuple(read("oracle", split=asked, limit=config.samples, revision=seed))

        def stage(name: str, model: Model, run: Path) -> Stage:
            nonlocal clock
            responses = model.assembly.generate(model, [one.prompt for one in prompts], _sampling(config))
            found = measure(_verdicts(prompts, responses))
            seconds, clock = time.perf_counter() - clock, time.perf_counter()
            say(f"     {name}: accuracy {found.accuracy}, unreadable {found.unreadable.value:.3f}  ({seconds:.0f} s)")
            return Stage(name=name, folder=run, responses=tuple(responses), measure=found, seconds=seconds)

        def train(
            name: str, start: Path, objective: Objective, data: Sequence[Comparison], *, steps: int, rate: float
        ) -> Stage:
            model = load(str(start))
            result = Trainer(
                model=model,
                objective=objective,
                data=data,
                output_dir=folder / name,
                max_steps=steps,
                learning_rate=rate,
                per_device_train_batch_size=config.batch_size,
                warmup_steps=10,
                logging_steps=5,
                seed=config.seed,
                quiet=quiet,
            ).train()
            return stage(name, model, result.folder)

        before = train("before", student, SFT(), taught, steps=config.sft_steps, rate=config.sft_learning_rate)
        start = before.folder / "final"
        say(f"2/{last}  align: pairs that share a defect; chosen wrong once, rejected the same and once more (DPO)")
        dpo = train("dpo", start, DPO(beta=config.beta), pairs, steps=config.dpo_steps, rate=config.learning_rate)
        say(f"3/{last}  control: imitate the chosen responses of the same pairs instead (SFT)")
        control = train("control", start, SFT(), pairs, steps=config.dpo_steps, rate=config.learning_rate)
        own = None
        if config.own_prompts:
            say(f"4/{last}  its own pairs: the best and the worst of four answers, by the oracle (DPO)")
            # of the same kind as those that measure, and after them where both are of one split
            size = config.samples + config.own_prompts
            answered = tuple(read("oracle", split=f"{of}prompts", limit=size, revision=seed))[config.samples :]
            made = _own_pairs(load(str(start)), answered, config)
            say(f"     {len(made)} pairs of {config.own_prompts} prompts")
            own = train("own", start, DPO(beta=config.beta), made, steps=config.dpo_steps, rate=config.learning_rate)
    return Demonstration(
        config=config,
        prompts=prompts,
        examples=tuple(pairs[number] for number in range(min(3, len(pairs)))),
        before=before,
        dpo=dpo,
        control=control,
        own=own,
        parameters=sum(value.numel() for value in load(str(student)).parameters()),
    )


def _student(folder: Path, config: DemonstrationConfig) -> Path:
    modality = config.modality or words_modality()
    found = registry.depiction(modality).student(folder, seed=config.seed)
    if found is None:
        raise ModelError(
            f"no tiny model of modality {modality!r}",
            got="its depiction of the oracle world offers none",
            fix="give the depiction a `student`, or install modalign[all]",
        )
    return found


def _sampling(config: DemonstrationConfig) -> GenerationConfig:
    """How responses are made, in every stage alike."""
    return GenerationConfig(
        temperature=1.0,
        max_new_tokens=40,
        batch_size=96,
        seed=config.seed,
    )


def _own_pairs(model: Model, prompts: Sequence[Comparison], config: DemonstrationConfig) -> tuple[Comparison, ...]:
    """What a model answers to prompts that it will not be measured on, as pairs."""
    how = _sampling(config)
    found = sample_pairs(
        model,
        prompts,
        registry.reward("oracle"),
        seed=how.seed,
        batch_size=how.batch_size,
        temperature=how.temperature,
        max_new_tokens=how.max_new_tokens,
    )
    if not found.pairs:
        raise ModelError(
            "the model answers every prompt alike, so there are no pairs of its own making",
            got=", ".join(f"{reason}: {count}" for reason, count in found.dropped.items()),
            fix="teach it longer (sft_steps), or leave them out (own_prompts=0)",
        )
    return found.pairs


def _verdicts(prompts: Sequence[Comparison], responses: Sequence[Response]) -> list[Verdict]:
    depictions = registry.depictions()
    found = [judge(one.prompt, response, depictions) for one, response in zip(prompts, responses, strict=True)]
    return [verdict for verdict in found if verdict is not None]


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for tensor work within the block: for kernels this small a second one costs more than it gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
