"""A response event by event: the same as when it is made whole, in order, and stopped by whoever stops listening."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
import torch

import modalign
from modalign.content import Message, Part, Response
from modalign.errors import ConfigError, DataError
from modalign.model import Model
from modalign.registry import registry
from modalign.streaming import Ended, Event, Made, Opened, Said, stream, tell
from modalign_text.multimodal.makers import opens
from modalign_text.testing import tiny_model


def asked(words: str = "Show me this: count two, colour red.") -> list[Message]:
    return [Message(role="user", parts=(Part(modality="text", value=words),))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Words, and pictures and sounds among them: a tiny one opens media all by itself."""
    folder = tmp_path_factory.mktemp("parts")
    for name in ("text", "image", "audio"):
        registry.depiction(name).student(folder / name)
    decoders = {name: {"path": str(folder / name), "connector": {"heads": 4}} for name in ("image", "audio")}
    model = modalign.compose(folder / "text", decoders=decoders)
    ids = model.assembly.preparer.tokenizer.convert_tokens_to_ids([opens(name) for name in decoders])  # pyright: ignore[reportAttributeAccessIssue]
    head = cast(torch.nn.Linear, model.decoders["text"].head)
    with torch.no_grad():  # likelier than by chance
        head.weight[ids] += 0.4 * torch.randn(
            len(ids), head.weight.shape[1], generator=torch.Generator().manual_seed(0)
        )
    return model


SETTINGS = {"temperature": 1.0, "max_new_tokens": 40, "max_media": 3, "num_inference_steps": 2}


def joined(events: Sequence[Event]) -> list[str]:
    """What was told, words run together between media."""
    found: list[str] = []
    last: Event | None = None
    for event in events:
        match event:
            case Said(words):
                if isinstance(last, Said):
                    found[-1] += words
                else:
                    found.append(words)
            case Made(part):
                found.append(part.digest)
            case _:
                pass
        last = event
    return found


@pytest.mark.parametrize("seed", range(3))
def test_events_are_the_response(model: Model, seed: int) -> None:
    (whole,) = model.generate([asked()], seed=seed, **SETTINGS)
    events = list(model.stream(asked(), seed=seed, **SETTINGS))
    last = events[-1]
    assert isinstance(last, Ended)
    assert [part.digest for part in last.response.parts()] == [part.digest for part in whole.parts()]
    said = [part.value if isinstance(part.value, str) else part.digest for part in whole.parts()]
    assert joined(events) == said
    opened = [number for number, event in enumerate(events) if isinstance(event, Opened)]
    assert opened
    for number in opened:
        assert isinstance(events[number + 1], Made)
        assert events[number].modality == events[number + 1].part.modality  # pyright: ignore[reportAttributeAccessIssue]


def test_a_language_model_alone_tells_its_words(tmp_path: Path) -> None:
    model = modalign.load(tiny_model(tmp_path / "words", "llama"))
    (whole,) = model.generate([asked("Say it")], seed=1, temperature=1.0, max_new_tokens=24)
    events = list(model.stream(asked("Say it"), seed=1, temperature=1.0, max_new_tokens=24))
    assert joined(events) == [part.value for part in whole.parts()]
    assert sum(isinstance(event, Said) for event in events) > 1


def test_a_model_that_tells_nothing_is_heard_at_its_end(tmp_path: Path) -> None:
    registry.depiction("image").student(tmp_path / "painter")
    made, ended = modalign.load(tmp_path / "painter").stream(asked(), num_inference_steps=2)
    assert isinstance(made, Made)
    assert isinstance(ended, Ended)


def test_who_stops_listening_stops_the_model() -> None:
    said = threading.Semaphore(0)

    def make(_: Sequence[Sequence[Message]]) -> list[Response]:
        while True:  # until it is stopped: else `close` would wait for ever
            tell(Said("on"))
            said.release()

    events = stream(make, asked())
    assert next(events) == Said("on")
    assert said.acquire(timeout=60)
    events.close()


def test_errors_are_raised_where_events_are_read(model: Model) -> None:
    with pytest.raises(ConfigError, match="max_new_token"):
        model.stream(asked(), max_new_token=3)
    with pytest.raises(DataError, match="empty"):
        list(model.stream([]))
