"""Example rows of each format: what the contract tries a format on, and what the docs show."""

from __future__ import annotations

Row = dict[str, object]

_ASKED: list[Row] = [{"role": "user", "content": "What is 2 + 2?"}]


def _says(content: str) -> list[Row]:
    return [{"role": "assistant", "content": content}]


def preference() -> list[Row]:
    """Explicit and implicit prompts, plain and conversational."""
    return [
        {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5", "margin": 1.5},
        {"chosen": "2 + 2 = 4", "rejected": "2 + 2 = 5", "score_chosen": 9.0, "score_rejected": 2.0},
        {"prompt": _ASKED, "chosen": _says("4"), "rejected": _says("5")},
        {"chosen": _ASKED + _says("4"), "rejected": _ASKED + _says("5"), "preferences": {"truth": 0.9}},
    ]


def hh_rlhf() -> list[Row]:
    """Two dialogues that are alike up to the last turn."""
    asked = "\n\nHuman: What is 2 + 2?\n\nAssistant: "
    return [{"chosen": f"{asked}4", "rejected": f"{asked}5"}]


def unpaired() -> list[Row]:
    """One response, and whether it is desirable."""
    return [
        {"prompt": "2 + 2 =", "completion": " 4", "label": True},
        {"prompt": _ASKED, "completion": _says("5"), "label": False, "critique": "2 + 2 is 4"},
    ]


def prompt_completion() -> list[Row]:
    """One response to imitate."""
    return [{"prompt": "2 + 2 =", "completion": " 4"}, {"prompt": _ASKED, "completion": _says("4")}]


def group() -> list[Row]:
    """Many responses with their rewards."""
    return [
        {"prompt": "2 + 2 =", "responses": [" 4", " 5", " four"], "rewards": [1.0, 0.0, 0.5]},
        {"prompt": _ASKED, "responses": [_says("4"), _says("5")], "rewards": [1, 0]},
    ]


def ms_swift() -> list[Row]:
    """A conversation that ends with the chosen answer, and the rejected one as a string and in a conversation."""
    return [
        {"messages": _ASKED + _says("4"), "rejected_response": "5", "margin": 1.5},
        {"messages": _ASKED + _says("4"), "rejected_messages": _ASKED + _says("5")},
    ]


def messages() -> list[Row]:
    """A conversation to imitate."""
    return [{"messages": _ASKED + _says("4")}]


def prompt_only() -> list[Row]:
    """A prompt to answer."""
    return [{"prompt": "2 + 2 ="}, {"prompt": _ASKED}]
