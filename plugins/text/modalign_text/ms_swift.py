"""ms-swift's preference rows: a conversation that ends with the chosen answer, and one that was rejected for it.

https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html; a medium's place is a block, as in TRL's rows,
and a mark of one in the words is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, final

from modalign.comparison import Comparison, Origin
from modalign.data.fields import Fields, expected, sequence
from modalign.data.media import REJECTED as OWN
from modalign.data.media import places
from modalign.data.messages import Parser, nonempty
from modalign.data.vocabulary import vocabulary
from modalign.errors import DataError
from modalign.roles import Format
from modalign.shown import shown
from modalign_text.columns import ANSWERING, REJECTED, Turns, answer_start, paired

_OTHERS: Final = frozenset({"chosen", "rejected", "completion", "responses"})  # columns of TRL's rows


@final
class MsSwift(Format):
    """`messages`, which end with the chosen response, and the rejected one: `rejected_response` or `rejected_messages`.

    A response is what the assistant says after the last user message, tools' outputs included.
    """

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return "messages" in columns and bool(columns.intersection(REJECTED)) and not columns & _OTHERS

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        column = _only(row)
        raw, instead = sequence(row.get("messages"), "messages"), row[column]
        end = next((at for at in range(len(raw), 0, -1) if _role(raw[at - 1]) not in ANSWERING), 0)
        whole = column == "rejected_messages"
        tail = _answer(raw[:end], sequence(instead, column), column) if whole else instead
        _refuse_marks(row, {"messages": raw, column: tail}, end if whole else 0)
        fields = Fields({**row, **_own_media(row, raw[:end], raw[end:], tail)})
        parser = Parser(fields, root=root)
        turns = parser.conversation(fields.take("messages"), "messages")
        answer_start(turns, "messages")
        fields.take(column)
        chosen, rejected = turns[end:], _rejected(parser, tail, column, end if whole else 0)
        prompt = nonempty(turns[:end], "messages")
        return paired(parser, fields, origin, (prompt, chosen, rejected), ("messages", column))


def _only(row: Mapping[str, object]) -> str:
    """The column of the rejected response."""
    there = [column for column in REJECTED if row.get(column) is not None]
    if len(there) > 1:
        raise DataError(
            f"two columns say the rejected response: {' and '.join(there)}", field=there[1], fix="remove one"
        )
    if not there:
        raise DataError(
            "a column is missing", field=REJECTED[0], got=f"columns {', '.join(row)}", fix="add it, or remove the row"
        )
    return there[0]


def _answer(prompt: Sequence[object], whole: Sequence[object], column: str) -> Sequence[object]:
    """What follows the prompt in the rejected conversation."""
    end = len(prompt)
    differs = next((at for at, (one, other) in enumerate(zip(prompt, whole, strict=False)) if one != other), None)
    if differs is None and len(whole) <= end:
        raise DataError(
            "expected the prompt of `messages` and an answer to it",
            field=column,
            got=f"{len(whole)} messages, of which the prompt is {end}",
            fix="write the whole conversation, or the answer alone into `rejected_response`",
        )
    if differs is not None:
        raise DataError(
            "chosen and rejected do not answer the same prompt",
            field=f"{column}[{differs}]",
            got=f"message {differs}, the first that differs, is by {shown(_role(whole[differs]))}",
            fix="remove the row: nothing says what was preferred to what",
        )
    return whole[end:]


def _rejected(parser: Parser, tail: object, column: str, first: int) -> Turns:
    """The messages of the rejected response.

    first: the number of its first message in the column.
    """
    if isinstance(tail, str):
        return parser.completion(tail, column, conversation=True)
    if not isinstance(tail, list | tuple):
        raise expected("a string or a list of messages", tail, column)
    turns = parser.conversation(tail, column, first=first, rejected=True)
    for at, turn in enumerate(turns, first):
        if turn.role not in ANSWERING:
            raise DataError(
                "a rejected response has messages of the assistant and of tools only",
                field=f"{column}[{at}].role",
                got=shown(turn.role),
                fix="both responses answer the last user message of `messages`: remove the row, or what follows",
            )
    return turns


def _own_media(
    row: Mapping[str, object], prompt: Sequence[object], chosen: Sequence[object], rejected: object
) -> dict[str, object]:
    """The columns `rejected_*` with the rejected response's media alone, where they repeat the prompt's before them."""
    known, found = vocabulary(), dict[str, object]()
    for column in known.columns:
        name = f"{OWN}{column}"
        if row.get(column) is None or row.get(name) is None:
            continue
        shared, own = _items(row[column]), _items(row[name])
        kind = known.of_column(column)
        # without blocks in prompt and chosen response all of the column is the prompt's
        asked = places(prompt, kind) or (0 if places(chosen, kind) else len(shared))
        if not asked or len(own) != asked + places(rejected, kind):
            continue
        for at, (one, other) in enumerate(zip(shared[:asked], own, strict=False)):
            if one is not other and not (isinstance(one, str | bytes | Mapping) and one == other):
                raise DataError(
                    "chosen and rejected do not answer the same prompt",
                    field=f"{name}[{at}]",
                    got=f"another medium than {column}[{at}], which is the prompt's",
                    fix="remove the row, or list the rejected response's own media only",
                )
        found[name] = own[asked:]
    return found


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else [value]


def _refuse_marks(row: Mapping[str, object], columns: Mapping[str, object], first: int) -> None:
    """Raise where words say the place of a medium that a column holds.

    first: the number of the first message that is given of the rejected conversation.
    """
    known = vocabulary()
    kinds = {known.of_column(one) for one in known.columns if _holds(row, one) or _holds(row, f"{OWN}{one}")}
    marks = [f"<{kind}>" for kind in sorted(kinds)]
    for column, messages in columns.items():
        for field, words in _words(messages, column, 0 if column == "messages" else first):
            if (mark := next((one for one in marks if one in words), None)) is not None:
                raise DataError(
                    "a mark in the words is not read as the place of a medium",
                    field=field,
                    got=shown(mark),
                    fix=f'write the content as blocks, {{"type": "{mark[1:-1]}"}} where the mark stands',
                )


def _holds(row: Mapping[str, object], column: str) -> bool:
    value = row.get(column)
    return value is not None and not (isinstance(value, list | tuple) and not value)


def _words(messages: object, column: str, first: int) -> Iterator[tuple[str, str]]:
    """Every string in raw messages, and the field it stands in."""
    if isinstance(messages, str):
        yield column, messages
    for at, message in enumerate(messages if isinstance(messages, list | tuple) else (), first):
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, str):
            yield f"{column}[{at}].content", content
        for number, block in enumerate(content if isinstance(content, list | tuple) else ()):
            if isinstance(block, Mapping) and isinstance(words := block.get(str(block.get("type"))), str):
                yield f"{column}[{at}].content[{number}]", words


def _role(message: object) -> object:
    return message.get("role") if isinstance(message, Mapping) else None
