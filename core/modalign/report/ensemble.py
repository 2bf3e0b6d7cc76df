"""The report of `modalign quickstart` over all modalities: before, after, by modality, and the model drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modalign.comparison import Comparison
from modalign.content import Response
from modalign.registry import registry
from modalign.report.demonstration import cells, curves
from modalign.report.page import Answer, Bar, Case, Gallery, Page, Picture, Row
from modalign.report.shown import show, show_all
from modalign.world.ensemble import Ensemble, EnsembleStage
from modalign.world.harmony import Harmony, Seen, judge_together
from modalign.world.measure import Rate

CASES = 8  #: requests whose responses are shown side by side

#: By stage: its label, the CSS class that colours it, and what it is.
_STAGES: Mapping[str, tuple[str, str, str]] = {
    "before": ("Before", "start", "after SFT on examples with mistakes"),
    "dpo": ("DPO", "dpo", "the contrast of chosen and rejected"),
    "control": ("Control", "control", "SFT on the same chosen responses"),
}


def of_ensemble(found: Ensemble) -> Page:
    """The page of a demonstration over all modalities."""
    described = found.description
    drawing = Picture(
        title="encoders, connectors, language model, conditioners, generators",
        note="a thick border trains",
        svg=described.svg(),
    )
    steps = f"{found.config.sft_steps} + {found.config.dpo_steps} + {found.config.dpo_steps}"
    return Page(
        title="One preference over words and media, aligned where the truth is known",
        lead=found.verdict,
        good=found.won,
        facts=(
            ("Parameters", f"{sum(one.parameters for one in described.parts):,}"),
            ("Steps of SFT, DPO, control", steps),
            ("Requests", f"{len(found.prompts)}"),
            ("Seed", f"{found.config.seed}"),
            ("Time", f"{found.seconds:.0f} s"),
        ),
        bars_title="Responses with everything right at once",
        bars_note="The parts that were asked for, in their order, and each shows all that was asked of it. The oracle "
        "reads every part; one that is unreadable is wrong. The requests are in no training data. Lines are 95 % "
        "intervals.",
        bars=tuple(_bar(stage) for stage in found.stages),
        columns=tuple(_STAGES[stage.name][:2] for stage in found.stages),
        rows_title="By what was asked",
        rows_note="Share of responses with the parts that were asked for, share whose parts agree where they carry the "
        "same, and by modality the share of its parts that show all that was asked of them.",
        rows=_rows([stage.harmony for stage in found.stages]),
        galleries=(Gallery(title="The model", note="", pictures=(drawing,), columns=1),),
        charts=curves(found.before.folder, found.dpo.folder),
        examples_note="Preference pairs that share a defect, of any part or of which parts there are: the chosen "
        "response is wrong too. Imitating it teaches the mistake; only the difference says which way is better.",
        examples=tuple(_example(pair, found) for pair in found.examples),
        cases_note="Requests of the measurement, some with a medium that says a part of them, one response each, "
        "sampled at temperature 1. Nothing was selected but the first requests in order.",
        cases=tuple(_case(found, number) for number in range(min(CASES, len(found.prompts)))),
        settings=(("This run", tuple((name, str(value)) for name, value in found.config)),),
    )


def _bar(stage: EnsembleStage) -> Bar:
    label, role, note = _STAGES[stage.name]
    rate = stage.harmony.whole
    return Bar(label=label, note=note, role=role, value=rate.value, low=rate.low, high=rate.high)


def _rows(found: Sequence[Harmony]) -> tuple[Row, ...]:
    def row(name: str, rates: Sequence[Rate]) -> Row:
        return Row(name=name, cells=cells(rates))

    return (
        row("parts asked for", [one.selection for one in found]),
        row("parts agree", [one.agreement for one in found]),
        *(row(f"{name} follows", [one.following[name] for one in found]) for name in found[0].following),
    )


def _example(pair: Comparison, found: Ensemble) -> Case:
    depictions = {name: registry.depiction(name) for name in found.before.harmony.following}
    shown = [judge_together(pair.prompt, one, depictions) for one in (pair.chosen, pair.rejected)]
    return Case(
        prompt=show_all(pair.prompt),
        answers=(
            _answer("chosen", "chosen", pair.chosen, shown[0]),
            _answer("rejected", "rejected", pair.rejected, shown[1]),
        ),
    )


def _case(found: Ensemble, number: int) -> Case:
    return Case(
        prompt=show_all(found.prompts[number].prompt),
        answers=tuple(
            _answer(*_STAGES[stage.name][:2], stage.responses[number], stage.seen[number]) for stage in found.stages
        ),
    )


def _answer(label: str, role: str, response: Response, seen: Seen | None) -> Answer:
    html = show(response.parts())
    if seen is None:
        return Answer(label=label, role=role, html=html)
    marks = [("parts asked for", seen.selected), *seen.followed.items()]
    marks += [] if seen.agreed is None else [("agreement", seen.agreed)]
    right = seen.selected and all(seen.followed.values())
    wrong = sum(not good for _, good in marks)
    return Answer(
        label=label,
        role=role,
        html=html,
        marks=tuple(marks),
        summary="all right" if right else f"{wrong} wrong",
        right=right,
    )
