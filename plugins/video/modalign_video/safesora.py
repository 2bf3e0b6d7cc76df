"""SafeSora's rows: pairs of clips judged for helpfulness and harmlessness, clips with labels of harm, and prompts.

Dai et al. 2024, https://arxiv.org/abs/2406.14477. Read from the published files as they are: `config-train.json.gz`,
`config-test.json.gz`, `eval-prompt.json.gz`, and the clips at `videos/PROMPT/VIDEO.mp4` beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, final

from modalign.comparison import Comparison, Origin
from modalign.content import Fact, Message, Part, Response
from modalign.data.fields import Fields, expected, mapping
from modalign.data.messages import Parser, nonempty, response
from modalign.errors import DataError, Skipped
from modalign.roles import Format
from modalign.shown import shown

#: Kinds of harm, each true or false of a prompt or of a clip.
HARMS: Final = (
    "porn",
    "animal_abuse",
    "child_abuse",
    "crime",
    "controversial",
    "contraband",
    "hate",
    "violence",
    "racism",
    "other_discrimination",
    "terrorism",
    "other_harmful",
)

#: Dimensions of a pair, each by the names that the files and the papers have for it.
SUB_DIMENSIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "instruction_following": ("instruction_following",),
    "correctness": ("correctness",),
    "informativeness": ("information", "informativeness"),
    "aesthetics": ("aesthetics",),
}

CLIPS: Final = "videos"  #: the folder of clips
SIDES: Final = ("video_0", "video_1")

_CLIP_FIELDS: Final = frozenset({"prompt_id", "prompt_text", "prompt_type", "prompt_labels"})  # repeat the row's


class _Pairs(Format):
    """Pairs, the better clip by one dimension first; all six preferences are kept."""

    dimension: str

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return {"prompt_text", *SIDES} <= columns and bool(columns & {"helpfulness", "harmlessness"})

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        fields = Fields(row)
        parser = Parser(fields, root=root)
        prompt, facts = _prompt(fields)
        preferences = _preferences(fields)
        clips = [_clip(parser, mapping(fields.take(side), side), row, f"{side}.") for side in SIDES]
        name = fields.maybe_text("pair_id")
        _remarks(fields)
        parser.done()
        if (first := preferences.get(self.dimension)) is None:
            raise Skipped(f"no preference for {self.dimension}", field=self.dimension, got="null")
        pair = Comparison.pair(prompt, *clips)
        found = replace(pair, preferences=preferences, id=name, facts=facts, origin=origin)
        return found if first == 1.0 else found.swap()


@final
class Helpfulness(_Pairs):
    """Pairs whose chosen clip is the more helpful one."""

    dimension = "helpfulness"


@final
class Harmlessness(_Pairs):
    """Pairs whose chosen clip is the safer one."""

    dimension = "harmlessness"


@final
class Labels(Format):
    """Clips, each with its labels of harm as scores of 0 or 1, `unsafe` beside `is_safe`, which is its label too."""

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return {"prompt_text", "video_id"} <= columns and bool(columns & {"video_labels", "is_safe"})

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        fields = Fields(row)
        parser = Parser(fields, root=root)
        prompt, facts = _prompt(fields)
        clip = {name: fields.take(name) for name in _CLIP_COLUMNS if fields.has(name)}
        answer = _clip(parser, clip, row, "")
        _remarks(fields)
        parser.done()
        name = str(clip["video_id"])
        return replace(Comparison.unpaired(prompt, answer), id=name, facts=facts, origin=origin)


@final
class Prompts(Format):
    """Prompts to be answered with a clip, with their kinds of harm as facts."""

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return {"prompt_id", "prompt_text"} <= columns and not columns & {*SIDES, "video_id", "video_path"}

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        fields = Fields(row)
        parser = Parser(fields, root=root)
        prompt, facts = _prompt(fields)
        name = fields.maybe_text("prompt_id")
        _remarks(fields)
        parser.done()
        return replace(Comparison.prompt_only(prompt), id=name, facts=facts, origin=origin)


_CLIP_COLUMNS: Final = (
    "video_id",
    "video_text",
    "video_path",
    "is_safe",
    "video_labels",
    "generated_from",
)


def _prompt(fields: Fields) -> tuple[tuple[Message, ...], dict[str, Fact]]:
    """The prompt as a message, and what is known of it."""
    words = Part(modality="text", value=fields.text("prompt_text"))
    facts: dict[str, Fact] = {}
    if (kind := fields.maybe_text("prompt_type")) is not None:
        facts["prompt_type"] = kind
    if fields.has("prompt_labels"):
        labels = _harms(fields.take("prompt_labels"), "prompt_labels")
        facts |= {f"prompt_{name}": value for name, value in labels.items()}
    return nonempty((Message(role="user", parts=(words,)),), "prompt_text"), facts


def _clip(parser: Parser, clip: Mapping[str, object], row: Mapping[str, object], where: str) -> Response:
    """The response that is a clip, with what was said of it.

    clip: its fields; where: what the names of its fields are put behind in messages.
    """
    fields = Fields({name: value for name, value in clip.items() if name not in _CLIP_FIELDS})
    try:
        known = fields.text("video_id")
        value = fields.take("video_path") if fields.has("video_path") else None
        home = clip.get("prompt_id") or row.get("prompt_id")
        if value is None or isinstance(value, str):
            value = _path(value, home, known)
        part = parser.block({"type": "video", "video": value}, "video_path")
        scores: dict[str, float] = {}
        if fields.has("video_labels"):
            scores |= {name: float(one) for name, one in _harms(fields.take("video_labels"), "video_labels").items()}
        safe = fields.flag("is_safe") if fields.has("is_safe") else None
        if safe is not None:
            scores |= {"is_safe": float(safe), "unsafe": float(not safe)}  # the second is what a cost model's sign says
        facts: dict[str, Fact] = {"video_id": known}
        facts |= {name: fields.text(name) for name in ("video_text", "generated_from") if fields.has(name)}
        _remarks(fields)
        fields.done()
        message = Message(role="assistant", parts=(part,))
        return response((message,), "video_path", label=safe if not where else None, scores=scores, facts=facts)
    except DataError as error:
        raise type(error)(error.what, field=f"{where}{error.field}", got=error.got, fix=error.fix) from error


def _path(said: str | None, prompt: object, video: str) -> str:
    """The clip's place below the root; a path that says another is an error."""
    if not isinstance(prompt, str):
        raise expected("a string", prompt, "prompt_id")
    for name, part in (("prompt_id", prompt), ("video_id", video)):
        if not part or "/" in part:
            raise DataError("a name that is no name of a file", field=name, got=shown(part), fix="correct the row")
    rule = f"{prompt}/{video}.mp4"
    if said is not None and not f"/{said}".endswith(f"/{rule}"):
        raise DataError(
            "a path that is not the clip's",
            field="video_path",
            got=shown(said),
            fix=f"clips lie at {CLIPS}/PROMPT/VIDEO.mp4 below the root: {CLIPS}/{rule}",
        )
    return f"{CLIPS}/{rule}"


def _preferences(fields: Fields) -> dict[str, float]:
    """By dimension, the probability that the first clip is the better one; 1 or 0."""
    found: dict[str, float] = {}
    for name in ("helpfulness", "harmlessness"):
        if fields.has(name):
            found[name] = _first(fields.take(name), name)
    if not fields.has("sub_preferences"):
        return found
    given = mapping(fields.take("sub_preferences"), "sub_preferences")
    subs = {name: value for name, value in given.items() if value is not None}
    for dimension, names in SUB_DIMENSIONS.items():
        there = [name for name in names if name in subs]
        if len(there) > 1:
            raise DataError(
                f"two fields say the same thing: {' and '.join(there)}", field=f"sub_preferences.{there[1]}"
            )
        if there:
            found[dimension] = _first(subs.pop(there[0]), f"sub_preferences.{there[0]}")
    for name, value in subs.items():
        raise DataError(
            "a dimension that SafeSora does not have",
            field=f"sub_preferences.{name}",
            got=shown(value),
            fix=f"use {', '.join(name for names in SUB_DIMENSIONS.values() for name in names)}",
        )
    return found


def _first(value: object, field: str) -> float:
    if value not in SIDES:
        raise expected(f"{SIDES[0]!r} or {SIDES[1]!r}", value, field)
    return 1.0 if value == SIDES[0] else 0.0


def _harms(value: object, field: str) -> dict[str, bool]:
    """Kinds of harm, each true or false; those that nobody judged are left out."""
    found = {name: one for name, one in mapping(value, field).items() if one is not None}
    for name, one in found.items():
        if name not in HARMS:
            fix = f"known: {', '.join(HARMS)}"
            raise DataError("an unknown kind of harm", field=f"{field}.{name}", got=shown(one), fix=fix)
        if not isinstance(one, bool):
            raise expected("true or false", one, f"{field}.{name}")
    return {name: one for name, one in found.items() if isinstance(one, bool)}


def _remarks(fields: Fields) -> None:
    """The column `info` is the annotators' bookkeeping: it says nothing of the content."""
    if fields.has("info"):
        fields.take("info")
