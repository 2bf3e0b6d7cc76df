"""What `modalign generate` and `modalign sample` share: prompts to answer, and new files of rows and media."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from modalign.cli.settings import explain
from modalign.comparison import Comparison
from modalign.config import GenerationConfig
from modalign.content import RAW, Message, Part
from modalign.data.media_out import MediaFolder
from modalign.errors import ConfigError


def prompts_of(
    command: str, prompt: Sequence[str], data: str | None, *, split: str | None = None, limit: int | None = None
) -> Sequence[Comparison]:
    """The prompts of the command line, or of rows: one of the two has to be given."""
    if bool(prompt) == bool(data):
        raise ConfigError(
            f"{command} answers prompts",
            got="no prompt" if data is None else "--prompt and --data",
            fix="give --prompt WORDS or --data PATH",
        )
    if data is not None:
        from modalign.data import read

        return read(data, split=split, limit=limit)
    from modalign.data.vocabulary import vocabulary

    words = vocabulary().of_strings()
    said = [Message(role="user", parts=(Part(modality=words, value=one),)) for one in prompt]
    return [Comparison.prompt_only([one]) for one in said]


def how(**stated: object) -> GenerationConfig:
    """Settings of generation, or an error in the words of their documentation."""
    try:
        return GenerationConfig.model_validate(stated)
    except ValidationError as error:
        raise explain(GenerationConfig, error) from error


def rows_file(output: Path) -> MediaFolder:
    """Where media of rows go that are about to be written: `NAME_media` beside the new file `NAME.jsonl`."""
    if output.exists() or output.is_symlink():
        raise ConfigError(
            "the output file is there already", where=str(output), got="a file or a folder", fix="name a new file"
        )
    if not output.parent.is_dir():
        raise ConfigError(
            "the output file's folder is not there", where=str(output), got="no folder", fix="make it first"
        )
    media = MediaFolder(output.parent / f"{output.stem}_media", root=output.parent)
    if media.filled:
        raise ConfigError(
            "media go into a new or an empty folder beside the output file",
            where=str(media.folder),
            got="there is something in it",
            fix="remove it, or name another output file",
        )
    return media


def prompt_columns(messages: Sequence[Message], answer: Sequence[Message]) -> dict[str, object]:
    """The columns of a row that say a prompt, whose media are files: in blocks, but beside plain words in a column.

    answer: where it is messages to a prompt of plain words, the prompt becomes a user's message: so rows are read.
    """
    from modalign.data.vocabulary import vocabulary
    from modalign.data.writing import RowWriter, column

    if not any(one.role == RAW for one in answer):
        messages = [replace(one, role="user") if one.role == RAW else one for one in messages]
    if not any(one.role == RAW and len(one.parts) > 1 for one in messages):
        return {"prompt": column(messages)}
    row, media = RowWriter(vocabulary(), blocks=False).row(Comparison.prompt_only(messages))
    return row | {name: [str(part.value) for part in parts] for name, parts in media.items()}


def in_media(media: MediaFolder) -> str:
    """How many files there are and where, for the line that ends a command; nothing where there are none."""
    return f"; {media.count} media in {media.folder}" if media.count else ""


def counting(total: int) -> Callable[[int], None]:
    """Tells on stderr how many are done."""
    done = 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        print(f"{done} of {total}", file=sys.stderr)

    return progress
