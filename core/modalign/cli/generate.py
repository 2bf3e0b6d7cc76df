"""`modalign generate --model M --prompt "..."`: one response to each prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from modalign.cli.answering import counting, how, in_media, prompt_columns, prompts_of, rows_file
from modalign.comparison import Comparison
from modalign.content import RAW, Message, Part, Response
from modalign.data.media_out import MediaFolder
from modalign.errors import ConfigError
from modalign.files import File

_MEDIA = Path("generated")  #: where media go that no rows name


def generate(
    *,
    model: str,
    prompt: Sequence[str] = (),
    data: str | None = None,
    split: str | None = None,
    output: Path | None = None,
    media_dir: Path | None = None,
    limit: int | None = None,
    max_new_tokens: int = 256,
    max_media: int = 8,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    batch_size: int = 8,
    seed: int = 0,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> int:
    """Answer prompts with a model, in words or in media.

    Parameters
    ----------
    model
        A model's folder (a run's `final/` among them) or an id on the hub.
    prompt
        What a user says; may be given more than once.
    data
        Rows whose prompts are answered, instead.
    split
        Split of the rows.
    output
        A new JSONL file for prompts and completions, with their media in the folder `NAME_media` beside it; by default
        they are printed.
    media_dir
        Folder for the media of responses that are printed, by default `generated`; what is in it stays.
    limit
        Answer the first rows only.
    max_new_tokens
        Most tokens of a response.
    max_media
        Most media in a response of a model that writes words and media.
    temperature
        0 takes the most likely token; 1 samples from the model.
    top_p
        Sample from the smallest set of tokens with this probability.
    top_k
        Sample from this many tokens; 0 is all.
    num_inference_steps
        Steps of a diffusion or flow sampler; by default the pipeline's own.
    guidance_scale
        How strongly media are pushed towards their prompt; by default the pipeline's own.
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
    settings = how(
        max_new_tokens=max_new_tokens,
        max_media=max_media,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        batch_size=batch_size,
        seed=seed,
    )
    if output is not None and media_dir is not None:
        raise ConfigError(
            "media of an output file lie beside it",
            where="--media_dir",
            got=f"--output {output}",
            fix="leave one of the two out",
        )
    folder = media_dir or _MEDIA
    media = MediaFolder(folder, root=folder) if output is None else rows_file(output)
    prompts = prompts_of("generate", prompt, data, split=split, limit=limit)
    from modalign.loading import load

    responses = load(model, dtype=dtype, revision=revision, trust_remote_code=trust_remote_code).generate(
        [one.prompt for one in prompts],
        progress=None if output is None else counting(len(prompts)),
        **settings.model_dump(),
    )
    if output is None:
        _show(prompts, responses, media)
    else:
        _write(output, prompts, responses, media)
    return 0


def _write(output: Path, prompts: Sequence[Comparison], responses: Sequence[Response], media: MediaFolder) -> None:
    from modalign.data.writing import column

    with output.open("x", encoding="utf-8") as file:
        for number, (asked, response) in enumerate(zip(prompts, responses, strict=True), 1):
            row = {
                **prompt_columns(media.take(asked.prompt, f"{number:05d}-prompt"), response.messages),
                "completion": column(media.take(response.messages, f"{number:05d}")),
            }
            file.write(f"{json.dumps(row, ensure_ascii=False)}\n")
    print(f"{len(responses)} responses in {output}{in_media(media)}")


def _show(prompts: Sequence[Comparison], responses: Sequence[Response], media: MediaFolder) -> None:
    first = media.free
    for number, (asked, response) in enumerate(zip(prompts, responses, strict=True), first):
        print(f"{_plain(asked.prompt)}\n-> {_plain(media.take(response.messages, f'{number:05d}'))}\n")


def _plain(messages: Sequence[Message]) -> str:
    """Messages as a person reads them, control characters spelt out; of media in files, where those are."""
    from modalign.cli.app import printable

    lines: list[str] = []
    for message in messages:
        said = "\n".join(printable(_said(part)) for part in message.parts)
        lines.append(said if message.role == RAW else f"[{message.role}] {said}")
    return "\n".join(lines)


def _said(part: Part) -> str:
    match part.value:
        case str():
            return part.value
        case File():
            return str(part.value.root / part.value.name)
        case _:
            return f"({part.modality})"
