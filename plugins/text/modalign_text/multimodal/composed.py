"""Any encoder before any language model: towers and connectors by config, put together, saved and loaded again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Final, cast, final

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from modalign.adapters import JoinedAdapters
from modalign.assembler import Sample, assemble
from modalign.comparison import Comparison
from modalign.config import Config, ConnectorConfig, DecoderConfig, EncoderConfig, GenerationConfig, ModelConfig
from modalign.content import Message, Response
from modalign.errors import CheckpointError
from modalign.freezing import freeze
from modalign.frozen import empty
from modalign.heads.storage import load_heads
from modalign.integrations.peft import LoraAdapters
from modalign.loading import claim
from modalign.model import Model
from modalign.registry import registry
from modalign.roles import Connector, Encoded, Encoder
from modalign_text import probe
from modalign_text.assembly import LanguageAssembly
from modalign_text.backbone import CausalLMBackbone
from modalign_text.config import COMPOSITION, Source
from modalign_text.decoder import TextDecoder
from modalign_text.loader import check_tokenizer, load_adapters, load_library, load_tokenizer, recompute
from modalign_text.logits import postprocessing
from modalign_text.multimodal.interleaved import Writer
from modalign_text.multimodal.makers import Maker, Speller, load_makers, save_makers, teach
from modalign_text.multimodal.markers import MarkerWriter
from modalign_text.multimodal.origins import Origin, check_origins, origin
from modalign_text.multimodal.planned import check_parts, encoder_name, no_connector
from modalign_text.multimodal.settings import settings_of
from modalign_text.preparer import ChatPreparer

CONNECTORS: Final = "connectors.safetensors"
_FOLDER: Final = "encoders"


@final
class Composition(Config):
    """What a saved composed model says of its parts."""

    encoders: dict[str, EncoderConfig]
    """By modality; a path is relative where the encoder was saved with the model."""

    media: dict[str, dict[str, object]]
    """How media are decoded, by modality."""

    decoders: dict[str, DecoderConfig] = Field(default_factory=dict)
    """What makes media, by modality; a path is relative where it was saved with the model."""

    origins: dict[str, Origin] = Field(default_factory=dict)
    """What each part was registered as and by whom, by the part: `encoders.NAME`."""


def load_composed(source: Source, config: ModelConfig) -> Model:
    """A language model with the encoders that the config, or the folder it was saved in, puts before it."""
    saved = None if source.folder is None else read_composition(source.folder)
    asked = config.encoders or ({} if saved is None else saved.encoders)
    behind = config.decoders or ({} if saved is None else saved.decoders)
    inside = source.folder if not config.encoders else None  # a path that was saved is of the folder it was saved in
    beside = source.folder if not config.decoders else None
    if saved is not None and source.folder is not None:
        kept = {name for name, place in (("encoders", inside), ("decoders", beside)) if place is not None}
        check_origins(_of(saved.origins, kept, {*asked, *behind}), source.folder / COMPOSITION)
    check_parts(asked, behind, config, source.config, {"encoders": inside, "decoders": beside})
    library = load_library(source, config, AutoModelForCausalLM)
    tokenizer = load_tokenizer(source, config, library, further=bool(behind))
    taught = teach(tokenizer, library, list(behind), bare=source.adapter)
    check_tokenizer(tokenizer, library, source.base)
    backbone = CausalLMBackbone(library)
    logits = postprocessing(library)
    probe.decide(backbone, config.sharing)
    adapters = load_adapters(library, source, config, tokens=taught)
    if config.gradient_checkpointing:
        recompute(library)
    encoders = {name: _encoder(name, one, inside, backbone.dtype) for name, one in asked.items()}
    connectors = {
        name: made.to(backbone.dtype)
        for name, one in asked.items()
        if (made := _connector(name, one.connector, encoders[name].width, backbone)) is not None
    }
    if saved is not None and not config.encoders and source.folder is not None:
        _load_connectors(connectors, source.folder)
    makers = load_makers(behind, config, backbone, beside, adapted=adapters is not None)
    spelt = {name: one.decoder for name, one in makers.items() if isinstance(one, Speller)}
    settings = settings_of([*asked, *spelt], config.media, {} if saved is None else saved.media, library)
    for name, encoder in encoders.items():
        encoder.facts = {**encoder.facts, "media": settings[name].model_dump_json()}
    writer = MarkerWriter(tokenizer, {**encoders, **spelt}, connectors, settings, makers)
    preparer = ChatPreparer(writer.tokenizer, media=writer, model=type(library).__name__)
    model = Model(
        assembly=ComposedAssembly(
            library,
            tokenizer,
            preparer,
            writer=writer,
            encoders=asked,
            adapters=adapters,
            makers=makers,
            decoders=behind,
        ),
        backbone=backbone,
        encoders=encoders,
        connectors=connectors,
        decoders={
            "text": TextDecoder(
                cast(nn.Module, library.get_output_embeddings()),
                scale=logits.scale,
                softcap=logits.softcap,
                never=logits.never,
            ),
            **{name: one.decoder for name, one in makers.items()},
        },
        heads={} if source.folder is None else load_heads(source.folder, backbone.width),
    )
    freeze(model, config.freeze)
    return model


def read_composition(folder: Path) -> Composition | None:
    """What a folder says of the encoders of its model; None where it is no composed model."""
    place = folder / COMPOSITION
    if not place.is_file():
        return None
    try:
        return Composition.model_validate_json(place.read_bytes())
    except (ValidationError, OSError) as error:
        raise CheckpointError(
            "the parts of this model cannot be read",
            where=str(place),
            got=" ".join(str(error).split())[:300],
            fix="copy it from the run again, or name the encoders in model.encoders",
        ) from error


def _encoder(modality: str, config: EncoderConfig, inside: Path | None, dtype: torch.dtype) -> Encoder:
    kind = registry.encoder(encoder_name(modality, config))
    path = config.path
    if inside is not None:
        if config.path != f"{_FOLDER}/{modality}":
            raise CheckpointError(
                "a saved model's encoder lies beside it",
                where=str(inside / COMPOSITION),
                got=config.path,
                fix=f"write {_FOLDER}/{modality} there, or name the encoder in model.encoders",
            )
        path = str(inside / config.path)
    return kind.load(path, revision=config.revision, dtype=dtype, **config.options)


def _connector(
    modality: str, config: ConnectorConfig | None, width: int, backbone: CausalLMBackbone
) -> Connector | None:
    if config is None:
        if width != backbone.width:  # of encoders whose small files did not tell
            raise no_connector(modality, width, backbone.width)
        return None
    return registry.connector(config.type).make(width, backbone.width, **config.options)


def _load_connectors(connectors: Mapping[str, Connector], folder: Path) -> None:
    try:
        nn.ModuleDict(dict(connectors)).load_state_dict(load_file(folder / CONNECTORS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            "the connectors of this model cannot be read",
            where=str(folder / CONNECTORS),
            got=" ".join(str(error).split())[:300],
            fix="copy the file from the run again",
        ) from error


@final
class ComposedAssembly(LanguageAssembly):
    """A language model with encoders before it and denoisers behind it.

    tokenizer: its own, without our markers.
    """

    def __init__(
        self,
        library: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        preparer: ChatPreparer,
        *,
        writer: MarkerWriter,
        encoders: Mapping[str, EncoderConfig],
        adapters: LoraAdapters | None,
        makers: Mapping[str, Maker] = empty(),
        decoders: Mapping[str, DecoderConfig] = empty(),
    ) -> None:
        super().__init__(library, preparer, adapters, writer.takes)
        self.gives = self.gives | writer.makes
        self.tokenizer, self.writer = tokenizer, writer
        self._encoders, self._makers, self._decoders = dict(encoders), dict(makers), dict(decoders)
        every = [one for one in (adapters, *(maker.adapters for maker in makers.values())) if one is not None]
        self.adapters = every[0] if len(every) == 1 else JoinedAdapters(every) if every else None

    def save_rest(self, model: Model, folder: Path, *, merge: bool) -> None:
        self.tokenizer.save_pretrained(folder)
        state = model.connectors.state_dict()
        still = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
        save_file(still, folder / CONNECTORS, metadata={"format": "pt"})
        said: dict[str, EncoderConfig] = {}
        for name, encoder in model.encoders.items():
            place = folder / _FOLDER / name
            cast(Encoder, encoder).save(place)
            said[name] = self._encoders[name].model_copy(
                update={"path": f"{_FOLDER}/{name}", "revision": None, "type": _registered(cast(Encoder, encoder))}
            )
        media = {name: settings.model_dump(mode="json") for name, settings in self.writer.settings.items()}
        decoders = save_makers(self._makers, self._decoders, folder, merge=merge) if self._makers else {}
        whole = Composition(encoders=said, media=media, decoders=decoders, origins=_origins(said, decoders, folder))
        (folder / COMPOSITION).write_text(whole.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def generate(
        self,
        model: Model,
        prompts: Sequence[Sequence[Message]],
        config: GenerationConfig,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[Response]:
        if not self._makers:
            return super().generate(model, prompts, config, progress=progress)
        write = Writer(
            model,
            library=self.library,
            chat=self._chat,
            markers=self.writer,
            makers=self._makers,
            stops=self.stops,
            stands=self.writer.stands,
        )
        return write(prompts, config, progress)

    @torch.no_grad()
    def given(self, model: Model, one: Encoded) -> Mapping[str, object]:
        lone = Comparison.unpaired((), Response(messages=()))
        batch = assemble([Sample(comparison=lone, encoded=(one,), own=1)], share=False)
        batch = batch.to(next(self.library.parameters()).device)
        found = cast(CausalLMBackbone, model.backbone).inputs(batch, model.embed(batch))
        return {"inputs_embeds": found["inputs_embeds"]}


def _origins(
    encoders: Mapping[str, EncoderConfig], decoders: Mapping[str, DecoderConfig], folder: Path
) -> dict[str, Origin]:
    """Where the parts of a model come from that is saved in a folder."""
    named = {f"modalities.{name}": ("modalities", name) for name in (*encoders, *decoders)}
    for name, one in encoders.items():
        named[f"encoders.{name}"] = ("encoders", str(one.type))
        if one.connector is not None:
            named[f"connectors.{name}"] = ("connectors", one.connector.type)
    for name, one in decoders.items():
        if one.type is not None:
            named[f"decoders.{name}"] = ("decoders", one.type)
        else:
            named[f"decoders.{name}"] = ("loaders", one.loader or claim(ModelConfig(path=str(folder / one.path)))[0])
    return {part: found for part, key in named.items() if (found := origin(*key)) is not None}


def _of(origins: Mapping[str, Origin], kinds: Set[str], names: Set[str]) -> dict[str, Origin]:
    """Those of the parts that a config leaves as they were saved."""
    found: dict[str, Origin] = {}
    for part, one in origins.items():
        kind, _, name = part.partition(".")
        own = kinds & {"encoders" if kind == "connectors" else kind} or (kind == "modalities" and name in names)
        if own:
            found[part] = one
    return found


def _registered(encoder: Encoder) -> str:
    """The name an encoder is registered by."""
    for name in registry.entries("encoders"):
        if registry.encoder(name) is type(encoder):
            return name
    raise CheckpointError(
        "an encoder is of a class that no plugin registers",
        got=type(encoder).__name__,
        fix="register it with `register_encoders`, so that it can be loaded again",
    )
