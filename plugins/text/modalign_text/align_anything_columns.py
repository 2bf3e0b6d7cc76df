"""What the columns of align-anything's subsets mean: column to role, modality and dimension.

The letters of text-to-video beside those of text-to-image are the initials of its dimensions: its columns are published
with the data only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, final

PROMPTS: Final = ("prompt", "question")  #: columns of the prompt's words

#: Columns of the prompt's media, by modality.
PROMPT_MEDIA: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "image": ("image", "image_url", "input_image"),
        "audio": ("audio", "audio_path"),
        "video": ("video", "video_path"),
    }
)

#: Columns of a response's media, by modality; `{}` is the number of the response.
ANSWER_MEDIA: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "image": ("image_{}", "output_image_{}", "output_image_url_{}"),
        "audio": ("audio_{}", "audio_path_{}"),
        "video": ("video_{}", "video_path_{}", "video_{}_path"),
    }
)

#: Columns that say which model wrote a response.
SOURCES: Final = ("res_{}_from", "model_{}", "image_{}_model", "audio_{}_model", "video_{}_model")

#: Columns of what was said of a response as a whole.
CRITIQUES: Final = ("critique_{}", "text_{}_feedback")
REFINEMENTS: Final = ("refinement_{}",)

#: Columns of words about the row as a whole.
REMARKS: Final = ("overall_textfeedback", "feedback", "refine_prompt", "reasoning")

_COMMON: Final = {"p": "prompt_following", "i": "information_richness", "s": "safety"}
_WORDS: Final = _COMMON | {"o": "objective_rules", "c": "clarity"}


@final
@dataclass(frozen=True, kw_only=True)
class Subset:
    """What the columns of one subset mean.

    name: as the data set calls it.
    asks: modality in the prompt beside words; None is none.
    answers: modality of the responses; with `words` they have words too.
    label: what columns of preferences end with: `overall_LABEL`, `p_LABEL`.
    dimensions: of the judgements, by the letters their columns begin with.
    """

    name: str
    asks: str | None = None
    answers: str | None = None
    words: bool = True
    label: str = "response"
    dimensions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType(_WORDS))


#: By name.
SUBSETS: Final[Mapping[str, Subset]] = MappingProxyType(
    {
        one.name: one
        for one in (
            Subset(name="t2t"),
            Subset(name="ti2t", asks="image"),
            Subset(name="ta2t", asks="audio"),
            Subset(name="tv2t", asks="video"),
            Subset(
                name="ti2ti",
                asks="image",
                answers="image",
                dimensions=_COMMON | {"o": "objective_rules", "ca": "ca"},
            ),
            Subset(
                name="t2i",
                answers="image",
                words=False,
                label="image",
                dimensions=_COMMON | {"o": "objective_rules", "a": "aesthetics"},
            ),
            Subset(
                name="t2a",
                answers="audio",
                words=False,
                label="audio",
                dimensions=_COMMON | {"o": "audio_quality", "a": "consistency"},
            ),
            Subset(
                name="t2v",
                answers="video",
                words=False,
                label="video",
                dimensions=_COMMON
                | {
                    "o": "video_objective_reality",
                    "a": "aesthetic",
                    "t": "temporal_consistency",
                    "c": "content_coherence",
                    "m": "motion_naturalness",
                },
            ),
        )
    }
)


def subset_of(columns: frozenset[str], *, named: frozenset[str] = frozenset()) -> Subset | None:
    """The subset that rows with these columns are of; None where they are of none.

    columns: that say something.
    named: all that there are; the judgements among them tell the subset where those that say something do not.
    """
    for judgements in (columns, columns | named):
        for one in SUBSETS.values():
            if _judged(one, judgements) and _shaped(one, columns):
                return one
    return None


def _judged(subset: Subset, columns: frozenset[str]) -> bool:
    whole, each = f"overall_{subset.label}", {f"{letters}_{subset.label}" for letters in subset.dimensions}
    return whole in columns or each <= columns


def _shaped(subset: Subset, columns: frozenset[str]) -> bool:
    """Whether the columns of prompt and responses are the subset's."""
    asked = [name for name, media in PROMPT_MEDIA.items() if columns.intersection(media)]
    there = all(_answered(subset, columns, which) for which in (1, 2))
    mixed = any(column.format(1) in columns for media in ANSWER_MEDIA.values() for column in media)
    fits = asked == ([subset.asks] if subset.asks else []) and (subset.answers is not None or not mixed)
    return bool(columns.intersection(PROMPTS)) and there and fits


def _answered(subset: Subset, columns: frozenset[str], which: int) -> bool:
    words = f"response_{which}" in columns
    if subset.answers is None:
        return words
    media = any(column.format(which) in columns for column in ANSWER_MEDIA[subset.answers])
    return (words and media) if subset.words else (words or media)
