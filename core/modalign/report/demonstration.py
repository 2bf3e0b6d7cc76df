"""The report of `modalign quickstart`: what the oracle says before and after, beside the control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from modalign.report.curves import Chart
from modalign.report.page import Bar, Case, Cell, Page, Row
from modalign.report.runs import chart
from modalign.report.shown import answer, show_all
from modalign.world.demonstration import Demonstration, Stage
from modalign.world.measure import Rate

CASES = 6  #: held-out prompts whose responses are shown side by side

#: By stage: its label, the CSS class that colours it, and what it is.
_STAGES: Mapping[str, tuple[str, str, str]] = {
    "before": ("Before", "start", "after SFT on examples with mistakes"),
    "dpo": ("DPO", "dpo", "the contrast of chosen and rejected"),
    "control": ("Control", "control", "SFT on the same chosen responses"),
    "own": ("Own pairs", "own", "DPO on its own answers, ranked by the oracle"),
}


def of_demonstration(found: Demonstration) -> Page:
    """The page of a demonstration."""
    charts = curves(found.before.folder, found.dpo.folder)
    if found.own is not None:
        mine = found.own.folder
        charts += _drawn(
            chart(
                "Displacement, on its own pairs",
                "the same, where the model made both",
                [
                    ("chosen", "own", mine, "displacement/chosen"),
                    ("rejected", "control", mine, "displacement/rejected"),
                ],
                level=0.0,
            )
        )
    return Page(
        title="A tiny model, aligned where the truth is known",
        lead=found.verdict,
        good=found.won,
        facts=(
            ("Parameters", f"{found.parameters:,}"),
            (
                "Steps of SFT, and of each stage after it",
                f"{found.config.sft_steps} + {' + '.join([str(found.config.dpo_steps)] * (len(found.stages) - 1))}",
            ),
            ("Held-out prompts" if found.config.held_out else "Prompts", f"{len(found.prompts)}"),
            ("Seed", f"{found.config.seed}"),
            ("Time", f"{found.seconds:.0f} s"),
        ),
        bars_title="Responses with everything right",
        bars_note="The oracle reads each response to a prompt "
        + ("the model never trained on. " if found.config.held_out else "for what the model was taught to show. ")
        + "All attributes must be as asked; an unreadable response is wrong. Lines are 95 % intervals.",
        bars=tuple(_bar(stage) for stage in found.stages),
        columns=tuple(_STAGES[stage.name][:2] for stage in found.stages),
        rows=_rows(found),
        charts=charts,
        examples_note="Preference pairs that share a defect: the chosen response is wrong too. Imitating it teaches "
        "the mistake; only the difference between the two says which way is better.",
        examples=tuple(
            Case(
                prompt=show_all(pair.prompt),
                answers=(
                    answer("chosen", "chosen", pair.prompt, pair.chosen),
                    answer("rejected", "rejected", pair.prompt, pair.rejected),
                ),
            )
            for pair in found.examples[:2]
        ),
        cases_note="Prompts of the measurement, one response each, sampled at temperature 1. Nothing was selected but "
        "the first prompts in order.",
        cases=tuple(_case(found, number) for number in range(min(CASES, len(found.prompts)))),
        settings=(("This run", tuple((name, str(value)) for name, value in found.config)),),
    )


def curves(before: Path, dpo: Path) -> tuple[Chart, ...]:
    """What two runs say of teaching and aligning, as far as they say it.

    before, dpo: their folders.
    """
    return _drawn(
        chart("Teaching: SFT loss", "per token or medium, by step", [("SFT", "start", before, "loss")]),
        chart(
            "Aligning: DPO loss",
            "dashed: log 2, where policy and reference agree",
            [("DPO", "dpo", dpo, "loss")],
            level=0.6931,
        ),
        chart(
            "DPO reward margin",
            "chosen minus rejected, beta times the log-ratios",
            [("DPO", "dpo", dpo, "rewards/margins")],
            level=0.0,
        ),
        chart(
            "Log-likelihood of the pair",
            "what counts is the gap",
            [("chosen", "dpo", dpo, "logps/chosen"), ("rejected", "control", dpo, "logps/rejected")],
        ),
        chart(
            "Displacement",
            "how much larger the errors are than the reference's, per dimension: rising for both, the winner gets less "
            "likely too",
            [("chosen", "dpo", dpo, "displacement/chosen"), ("rejected", "control", dpo, "displacement/rejected")],
            level=0.0,
        ),
    )


def _drawn(*charts: Chart | None) -> tuple[Chart, ...]:
    return tuple(one for one in charts if one is not None)


def _bar(stage: Stage) -> Bar:
    label, role, note = _STAGES[stage.name]
    rate = stage.measure.accuracy
    return Bar(label=label, note=note, role=role, value=rate.value, low=rate.low, high=rate.high)


def _rows(found: Demonstration) -> tuple[Row, ...]:
    rows = [
        Row(name=name, cells=cells([stage.measure.attributes[name] for stage in found.stages]))
        for name in found.before.measure.attributes
    ]
    unreadable = [stage.measure.unreadable for stage in found.stages]
    return (*rows, Row(name="unreadable", cells=cells(unreadable, more_is_better=False)))


def cells(rates: Sequence[Rate], *, more_is_better: bool = True) -> tuple[Cell, ...]:
    """Rates beside the first of them.

    more_is_better: which way is good.
    """
    first = rates[0]

    def better(rate: Rate) -> bool | None:
        if rate.low > first.high:
            return more_is_better
        return not more_is_better if rate.high < first.low else None

    return tuple(Cell(value=rate.value, low=rate.low, high=rate.high, better=better(rate)) for rate in rates)


def _case(found: Demonstration, number: int) -> Case:
    prompt = found.prompts[number].prompt
    return Case(
        prompt=show_all(prompt),
        answers=tuple(answer(*_STAGES[stage.name][:2], prompt, stage.responses[number]) for stage in found.stages),
    )
