"""`modalign generate --model M --prompt "..."`: one response to each prompt."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from modalign.cli.settings import explain
from modalign.config import GenerationConfig
from modalign.content import Message, Part
from modalign.errors import ConfigError


def generate(
    *,
    model: str,
    prompt: Sequence[str] = (),
    data: str | None = None,
    output: Path | None = None,
    limit: int | None = None,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    batch_size: int = 8,
    seed: int = 0,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> int:
    """Answer prompts with a model.

    Parameters
    ----------
    model
        A model's folder (a run's `final/` among them) or an id on the hub.
    prompt
        What a user says; may be given more than once.
    data
        Rows whose prompts are answered, instead.
    output
        A new JSONL file for prompts and completions; by default they are printed.
    limit
        Answer the first rows only.
    max_new_tokens
        Most tokens of a response.
    temperature
        0 takes the most likely token; 1 samples from the model.
    top_p
        Sample from the smallest set of tokens with this probability.
    top_k
        Sample from this many tokens; 0 is all.
    batch_size
        Prompts at a time.
    seed
        Of the sampling.
    dtype
        Type of the weights: auto, float32, bfloat16 or float16.
    revision
        Branch, tag or commit of an id on the hub.
    trust_remote_code
        Run code that the model's repository brings; needs a commit as revision where it is an id.
    """
    if bool(prompt) == bool(data):
        raise ConfigError(
            "generate answers prompts",
            got="no prompt" if data is None else "--prompt and --data",
            fix="give --prompt WORDS or --data PATH",
        )
    if output is not None and output.exists():
        raise ConfigError(
            "the output file is there already", where=str(output), got="a file or a folder", fix="name a new file"
        )
    if output is not None and not output.parent.is_dir():
        raise ConfigError(
            "the output file's folder is not there", where=str(output), got="no folder", fix="make it first"
        )
    try:
        settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            batch_size=batch_size,
            seed=seed,
        )
    except ValidationError as error:
        raise explain(GenerationConfig, error) from error
    from modalign.data import read
    from modalign.data.vocabulary import vocabulary
    from modalign.data.writing import column
    from modalign.loading import load

    if data is None:
        words = vocabulary().of_strings()
        prompts = [(Message(role="user", parts=(Part(modality=words, value=one),)),) for one in prompt]
    else:
        prompts = [one.prompt for one in read(data, limit=limit)]
    responses = load(model, dtype=dtype, revision=revision, trust_remote_code=trust_remote_code).generate(
        prompts, progress=None if output is None else _count(len(prompts)), **settings.model_dump()
    )
    rows = [
        {"prompt": column(asked), "completion": column(response.messages)}
        for asked, response in zip(prompts, responses, strict=True)
    ]
    if output is None:
        for row in rows:
            print(f"{_plain(row['prompt'])}\n-> {_plain(row['completion'])}\n")
        return 0
    with output.open("x", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    print(f"{len(rows)} responses in {output}")
    return 0


def _plain(said: str | list[dict[str, object]]) -> str:
    """A column as a person reads it, its control characters spelt out."""
    from modalign.cli.app import printable

    if isinstance(said, str):
        return printable(said)
    return "\n".join(f"[{message['role']}] {printable(str(message['content']))}" for message in said)


def _count(total: int) -> Callable[[int], None]:
    done = 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        print(f"{done} of {total}", file=sys.stderr)

    return progress
