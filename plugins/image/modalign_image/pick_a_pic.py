"""Pick-a-Pic's rows: a caption, two pictures that were made of it, and which of them a person took.

Kirstain et al. 2023, https://arxiv.org/abs/2305.01569. Read from the published files as they are, versions 1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, final

from modalign.comparison import Comparison, Origin
from modalign.content import Fact, Message, Part, Response
from modalign.data.fields import Fields, number
from modalign.data.messages import Parser, nonempty, response
from modalign.errors import DataError, Skipped
from modalign.roles import Format

PICTURES: Final = ("jpg_0", "jpg_1")
LABELS: Final = ("label_0", "label_1")

_TIED: Final = 0.5
_BOOKKEEPING: Final = ("__index_level_0__", "are_different", "num_example_per_prompt", "ranking_id", "user_id")


@final
class PickAPic(Format):
    """Pairs of pictures; the one that was taken is the chosen one.

    Ties (`label_0` of 0.5) and rows without a label are skipped and counted, as Diffusion-DPO leaves them out.
    """

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return {"caption", *PICTURES} <= columns and bool(columns & {*LABELS, "best_image_uid"})

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        fields = Fields(row)
        parser = Parser(fields, root=root)
        words = Part(modality="text", value=fields.text("caption"))
        prompt = nonempty((Message(role="user", parts=(words,)),), "caption")
        for name in _BOOKKEEPING:
            if fields.has(name):
                fields.take(name)
        first = _first(fields)
        pictures = [_picture(fields, parser, which) for which in (0, 1)]
        parser.done()
        if first is None:
            raise Skipped("no picture was taken", field="label_0", got="no label", fix="the row is left out")
        if first == _TIED:
            raise Skipped("a tie", field="label_0", got=f"{_TIED}", fix="the row is left out")
        pair = replace(Comparison.pair(prompt, *pictures), origin=origin)
        return pair if first == 1.0 else pair.swap()


def _first(fields: Fields) -> float | None:
    """1 where the first picture was taken, 0 where the second was, 1/2 of a tie; None where nobody said."""
    said = {name: number(fields.take(name), name) for name in LABELS if fields.has(name)}
    if "label_1" in said:
        said["label_1"] = 1.0 - said["label_1"]
    best = fields.maybe_text("best_image_uid")
    known = [fields.maybe_text(f"image_{which}_uid") for which in (0, 1)]
    if best in ("tie", *known):
        said["best_image_uid"] = _TIED if best == "tie" else float(best == known[0])
    elif best and None not in known:
        fix = f"it is tie, {known[0]} or {known[1]}"
        raise DataError("a picture that the row does not have", field="best_image_uid", got=best, fix=fix)
    for name, value in said.items():
        if value not in (0.0, _TIED, 1.0):
            got = 1.0 - value if name == "label_1" else value
            raise DataError("a label is 1, 0, or 0.5 for a tie", field=name, got=f"{got:g}", fix="correct the row")
    if len(set(said.values())) > 1:
        name = list(said)[-1]
        got = ", ".join(f"{one}: {fields.take(one)}" for one in said)
        raise DataError("labels that contradict each other", field=name, got=got, fix="remove the row")
    labelled = fields.flag("has_label") if fields.has("has_label") else True
    return next(iter(said.values()), None) if labelled else None


def _picture(fields: Fields, parser: Parser, which: int) -> Response:
    """The response that is a picture, with what is known of it."""
    column = PICTURES[which]
    part = parser.block({"type": "image", "image": fields.take(column)}, column)
    facts: dict[str, Fact] = {}
    columns = {"image_uid": f"image_{which}_uid", "image_url": f"image_{which}_url", "source": f"model_{which}"}
    for fact, name in columns.items():
        if fields.has(name):
            facts[fact] = fields.text(name)
    return response((Message(role="assistant", parts=(part,)),), column, facts=facts)
