"""What a checkpoint that reads media is beyond its modules: how it reads, writes and is saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast, final

from transformers import PreTrainedModel

from modalign.config import GenerationConfig
from modalign.content import Message, Response
from modalign.errors import CheckpointError
from modalign.integrations.peft import LoraAdapters
from modalign.model import Model
from modalign.roles import Encoded
from modalign_text.assembly import LanguageAssembly
from modalign_text.multimodal.interleaved import Writer
from modalign_text.multimodal.native.decoder import PictureDecoder
from modalign_text.multimodal.native.drawn import Native
from modalign_text.multimodal.native.options import OPTIONS
from modalign_text.multimodal.native.writer import NativeWriter
from modalign_text.multimodal.processing import ProcessorWriter
from modalign_text.preparer import ChatPreparer

MEDIA = "modalign_media.json"  #: how the media of a checkpoint are decoded


@final
class MultimodalAssembly(LanguageAssembly):
    """A checkpoint loaded whole, with its processor."""

    def __init__(
        self,
        library: PreTrainedModel,
        preparer: ChatPreparer,
        writer: ProcessorWriter,
        adapters: LoraAdapters | None = None,
    ) -> None:
        super().__init__(library, preparer, adapters, writer.takes)
        self.writer = writer
        if isinstance(writer, NativeWriter) and writer.pictures.mute is None:
            self.gives = self.gives | writer.makes

    def save_rest(self, model: Model, folder: Path, *, merge: bool) -> None:
        self.writer.processor.save_pretrained(folder)
        said = {name: settings.model_dump(mode="json") for name, settings in self.writer.settings.items()}
        (folder / MEDIA).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")

        if isinstance(self.writer, NativeWriter):
            options = self.writer.options.model_dump_json(indent=2)
            (folder / OPTIONS).write_text(options + "\n", encoding="utf-8")

    def generate(
        self,
        model: Model,
        prompts: Sequence[Sequence[Message]],
        config: GenerationConfig,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[Response]:
        if not isinstance(self.writer, NativeWriter):
            return super().generate(model, prompts, config, progress=progress)
        drawing = Native(decoder=cast(PictureDecoder, model.decoders["image"]), writer=self.writer)
        drawing.check(config)
        write = Writer(
            model,
            library=self.library,
            chat=self._chat,
            markers=self.writer,
            makers={"image": drawing},
            stops=self.stops,
        )
        return write(prompts, config, progress)

    def given(self, model: Model, one: Encoded) -> Mapping[str, object]:
        device = next(self.library.parameters()).device
        whole = self.writer.arguments(one, device, self.library)
        return {name: value for name, value in whole.items() if name not in ("input_ids", "attention_mask")}


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
