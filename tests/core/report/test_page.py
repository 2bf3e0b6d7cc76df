"""The report is one file that fetches nothing, runs nothing, and escapes whatever a model or a user wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from modalign.content import Message, Part, Response
from modalign.errors import DataError
from modalign.objectives.base import Predictions
from modalign.registry import registry
from modalign.report import Page, of_demonstration, of_evaluation, of_run, render, write
from modalign.report.judged import of_predictions
from modalign.report.page import Answer, Bar, Case, Cell, Row
from modalign.report.runs import series
from modalign.training.storage.predictions import keep
from modalign.world import Concept, Verdict, World, judge, measure
from modalign.world.demonstration import Demonstration, DemonstrationConfig, Stage

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}{% raw %}"


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend(attrs)


def harmless(html):
    reader = Reader()
    reader.feed(html)
    assert not {"script", "iframe", "object", "embed", "link", "form", "base"} & set(reader.tags)
    for name, value in reader.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "href") or (value or "").startswith("data:")
    assert "http://" not in html
    assert "https://" not in html
    return reader


def run_folder(folder: Path, records, config="seed: 0\n"):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "config.yaml").write_text(config)
    return folder


def demonstration(folder: Path, answers) -> Demonstration:
    world = World(depiction=registry.depiction("text"), words="text")
    prompts = tuple(world.rows("prompts", 4, held_out=True))
    records = [{"step": step, "loss": 0.7 - step / 100, "rewards/margins": step / 10} for step in range(5, 30, 5)]

    def stage(name, text):
        responses = tuple(
            Response(messages=(Message(role="assistant", parts=(Part(modality="text", value=text),)),)) for _ in prompts
        )
        verdicts = [
            judge(one.prompt, found, registry.depictions()) for one, found in zip(prompts, responses, strict=True)
        ]
        return Stage(
            name=name,
            folder=run_folder(folder / name, records),
            responses=responses,
            measure=measure([verdict for verdict in verdicts if verdict is not None]),
            seconds=1.0,
        )

    before, dpo, control = (stage(name, text) for name, text in zip(("before", "dpo", "control"), answers, strict=True))
    return Demonstration(
        config=DemonstrationConfig(samples=4),
        prompts=prompts,
        examples=tuple(world.rows("shared-defect", 2)),
        before=before,
        dpo=dpo,
        control=control,
        parameters=86_144,
    )


def test_hostile_text_is_shown_and_never_obeyed(tmp_path):
    html = render(of_demonstration(demonstration(tmp_path, [HOSTILE] * 3)))
    harmless(html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "{{ 7 * 7 }}" in html  # a response is no template


def test_hostile_names_and_settings_are_escaped_everywhere():
    page = Page(
        title=HOSTILE,
        lead=HOSTILE,
        facts=((HOSTILE, HOSTILE),),
        bars=(Bar(label=HOSTILE, note=HOSTILE, role="dpo", value=0.5, low=0.4, high=0.6),),
        columns=((HOSTILE, "dpo"),),
        rows=(Row(name=HOSTILE, cells=(Cell(value=0.5, low=0.4, high=0.6),)),),
        cases=(Case(prompt="", answers=(Answer(label=HOSTILE, role="dpo", html="", summary=HOSTILE),)),),
        settings=((HOSTILE, ((HOSTILE, HOSTILE),)),),
    )
    harmless(render(page))


def test_the_report_shows_numbers_intervals_curves_and_the_responses(tmp_path):
    found = demonstration(tmp_path, ["Two red circles.", "One blue square.", "Nobody is hurt."])
    html = render(of_demonstration(found))
    reader = harmless(html)
    for expected in ("Before", "DPO", "Control", "By attribute", "unreadable", "Two red circles.", "86,144"):
        assert expected in html
    assert reader.tags.count("svg") == 3  # SFT loss, DPO loss, margin; these runs logged no log-likelihoods
    assert "prefers-color-scheme: dark" in html


def test_a_failed_demonstration_says_so(tmp_path):
    found = demonstration(tmp_path, ["nonsense"] * 3)
    page = of_demonstration(found)
    assert page.good is False
    assert "did NOT beat" in page.lead


def test_a_win_within_the_intervals_is_not_called_one(tmp_path):
    found = demonstration(tmp_path, ["nonsense"] * 3)
    concept = Concept(count=2)
    half = measure([Verdict(asked=concept, shown=shown) for shown in (concept, None, None, None)])
    ahead = replace(found, dpo=replace(found.dpo, measure=half))
    assert not ahead.won
    assert "does not show" in ahead.verdict


def test_any_run_folder_has_a_report(tmp_path):
    records = [{"step": step, "loss": 1 / step, "learning_rate": 0.1, "eval_loss": "NaN"} for step in (1, 2, 3)]
    folder = run_folder(tmp_path / "run", records, "learning_rate: 0.1\nmodel:\n  path: <b>m</b>\n")
    file = write(of_run(folder), tmp_path / "report.html")
    html = file.read_text()
    assert harmless(html).tags.count("svg") == 1  # the loss: a curve of NaN draws nothing
    assert "model.path" in html
    assert "&lt;b&gt;m&lt;/b&gt;" in html


def test_a_later_line_of_a_step_wins(tmp_path):
    folder = run_folder(tmp_path / "run", [{"step": 1, "loss": 2.0}, {"step": 1, "loss": 3.0}])
    assert series(folder) == {"loss": ((1, 3.0),)}


def test_a_folder_that_is_no_run_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"no metrics\.jsonl"):
        of_run(tmp_path)


def judged(kind, predicted, said):
    values = (torch.tensor(values, dtype=torch.float64) for values in (predicted, said))
    return Predictions(kind=kind, predicted=next(values), said=next(values))


JUDGED = (
    judged("preference", [0.9, 0.8, 0.3, 0.6, 0.5], [1.0, 1.0, 1.0, 0.0, 0.5]),  # 2 of 4 agree
    judged("label", [0.9, 0.7, 0.4, 0.2, 0.6, 0.1], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]),
    judged("number", [0.1, 1.2, 2.6, 2.4], [0.0, 1.0, 2.0, 3.0]),
)


def test_names_cannot_break_out_of_a_picture_or_a_page(tmp_path):
    given = {f"{HOSTILE}{kind}": found for kind, found in (("p", JUDGED[0]), ("l", JUDGED[1]), ("n", JUDGED[2]))}
    for gallery in of_predictions(given).galleries:
        for picture in gallery.pictures:
            ElementTree.fromstring(picture.svg)
    folder = run_folder(tmp_path / "run", [{"step": 3, "loss": 0.5}])
    keep(folder, given, step=3)
    harmless(render(of_run(folder)))
    harmless(render(of_evaluation(given, title=HOSTILE, samples=5, skipped={HOSTILE: 1})))


def test_the_report_of_a_run_shows_what_its_last_evaluation_found(tmp_path):
    folder = run_folder(tmp_path / "run", [{"step": step, "loss": 0.7} for step in (1, 2, 3)])
    keep(folder, {"kindness": JUDGED[0], "rude": JUDGED[1]}, step=2)
    html = render(of_run(folder))
    harmless(html)
    for said in ("Agreement with people", "kindness", "50.0 %", "rude", "AUROC", "Called, and carried", "Calibration"):
        assert said in html
    assert "after 2 of 3 steps" in html


def test_a_run_without_predictions_has_the_report_it_had(tmp_path):
    folder = run_folder(tmp_path / "run", [{"step": 1, "loss": 0.7}])
    page = of_run(folder)
    assert (page.bars, page.tables, page.galleries, page.facts) == ((), (), (), ())
    assert "Last values: loss 0.7" in page.lead
