"""What a model that reads media is beyond its modules: how it reads, writes and is saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast, final

from transformers import PreTrainedModel

from modalign.config import GenerationConfig
from modalign.content import RAW, Message, Response
from modalign.errors import CheckpointError
from modalign.heads.storage import save_heads
from modalign.integrations.peft import LoraAdapters
from modalign.model import Model
from modalign.roles import Assembly
from modalign_text.generation import generate
from modalign_text.media import media_of
from modalign_text.multimodal.processing import ProcessorWriter
from modalign_text.preparer import ChatPreparer

MEDIA = "modalign_media.json"  #: how the media of a checkpoint are decoded


@final
class MultimodalAssembly(Assembly):
    """A checkpoint loaded whole, with its processor.

    library: the model as transformers knows it; its parts are the model's.
    """

    def __init__(
        self,
        library: PreTrainedModel,
        preparer: ChatPreparer,
        writer: ProcessorWriter,
        adapters: LoraAdapters | None = None,
    ) -> None:
        self.library = library
        self.writer = writer
        self.preparer = self._chat = preparer
        self.adapters = self._lora = adapters
        self.takes = frozenset({"text", *writer.takes})
        self.gives = frozenset({"text"})

    def save(self, model: Model, folder: Path, *, merge: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self._lora is None:
            self.library.save_pretrained(folder)
        elif merge:
            self.library.save_pretrained(folder, state_dict=self._lora.merged())
        else:
            self._lora.save(folder)
        self.writer.processor.save_pretrained(folder)
        said = {name: settings.model_dump(mode="json") for name, settings in self.writer.settings.items()}
        (folder / MEDIA).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        if len(model.heads):
            save_heads(model.heads, folder)

    def generate(
        self,
        model: Model,
        prompts: Sequence[Sequence[Message]],
        config: GenerationConfig,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[Response]:
        written: dict[int, list[int]] = {}
        words = [number for number, prompt in enumerate(prompts) if not media_of(prompt)]
        plain = [self._chat.prompt_ids(prompts[number]) for number in words]
        stops, pad = self.stops, self.preparer.pad
        found = generate(self.library, plain, config, stops=stops, pad=pad, progress=progress)
        written.update(zip(words, found, strict=True))
        device = next(self.library.parameters()).device
        for number in sorted(set(range(len(prompts))) - written.keys()):  # media of several prompts do not line up
            one = self._chat.prompt(prompts[number])
            given = self.writer.arguments(one, device, self.library)
            del given["input_ids"], given["attention_mask"]
            (written[number],) = generate(
                self.library, [one.tokens], config, stops=stops, pad=pad, progress=progress, media=given
            )
        roles = (RAW if prompt[0].role == RAW else "assistant" for prompt in prompts)
        return [self._chat.response_of(written[number], role=role) for number, role in enumerate(roles)]

    @property
    def stops(self) -> frozenset[int]:
        """Token ids that end a turn: the tokenizer's, the checkpoint's and the chat template's."""
        own = self.library.generation_config
        said = [] if own is None or own.eos_token_id is None else own.eos_token_id
        return self._chat.stop_ids | frozenset(said if isinstance(said, list) else [cast(int, said)])


def saved_media(folder: Path) -> Mapping[str, Mapping[str, object]]:
    """How the media of a saved model are decoded; nothing where it does not say."""
    place = folder / MEDIA
    if not place.is_file():
        return {}
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
            raise ValueError("expected an object of objects")
    except (ValueError, OSError) as error:
        raise CheckpointError(
            "how media are decoded cannot be read",
            where=str(place),
            got=error,
            fix="remove the file, and say it in model.media",
        ) from error
    return found
