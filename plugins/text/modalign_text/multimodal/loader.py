"""A checkpoint that reads media becomes a model: its towers encoders, its language model the backbone.

Whatever `AutoModelForMultimodalLM` loads is taken apart the same way, and proven: what the parts give for a row with
media must be what the whole model gives.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import transformers
from torch import nn
from transformers import (
    AutoModelForMultimodalLM,
    AutoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from modalign.config import ModelConfig
from modalign.errors import ConfigError, ModelError
from modalign.freezing import freeze
from modalign.heads.storage import load_heads
from modalign.model import Model
from modalign.registry import registry
from modalign.roles import Backbone, Decoder, Encoder, MediaSettings
from modalign_text import probe
from modalign_text.backbone import CausalLMBackbone
from modalign_text.config import THINKERS, Source
from modalign_text.decoder import TextDecoder
from modalign_text.loader import chat_template, check_tokenizer, load_adapters, load_library, recompute
from modalign_text.logits import postprocessing
from modalign_text.multimodal.assembly import MultimodalAssembly
from modalign_text.multimodal.encoder import NotInSequence, TowerEncoder, towers_of
from modalign_text.multimodal.native.decoder import decoder_of
from modalign_text.multimodal.native.encoder import CodeEncoder
from modalign_text.multimodal.native.loading import drawing, towers_beside
from modalign_text.multimodal.native.options import options_of
from modalign_text.multimodal.native.pictures import pictures_of
from modalign_text.multimodal.native.writer import NativeWriter
from modalign_text.multimodal.processing import ProcessorWriter
from modalign_text.multimodal.proving import prove, tried
from modalign_text.multimodal.settings import listed, media_settings
from modalign_text.multimodal.whole import RowEncoder, RowWriter, WholeBackbone
from modalign_text.preparer import ChatPreparer

_LOG = logging.getLogger("modalign")

_FILES: Final = ("processor_config.json", "preprocessor_config.json")


def load_multimodal(source: Source, config: ModelConfig) -> Model:
    """The model of a checkpoint that reads media beside text."""
    if config.encoders:
        raise ConfigError(
            "this checkpoint brings its own towers",
            where="model.encoders",
            got=", ".join(config.encoders),
            fix="remove the section, or put encoders before a language model of words alone",
        )
    library = load_library(source, config, _class_of(source))
    processor = load_processor(source, config, library)
    settings = media_settings(library, processor, source, config)
    logits = postprocessing(library)
    pictures = pictures_of(library, processor) if "image" in settings else None
    try:
        if pictures is None:
            writer, backbone, encoders = _apart(library, processor, settings, config)
        else:
            said = options_of(config.options, source.folder, pictures)
            writer = NativeWriter(library, processor, settings, pictures, said)
            backbone, encoders = drawing(library, writer, config.sharing)
    except NotInSequence as error:
        if config.sharing in ("split", "mask") or pictures is not None:
            raise
        writer, backbone, encoders = _whole(library, processor, settings, error)
    family = type(library).__name__
    preparer = ChatPreparer(writer.tokenizer, template=writer.template, media=writer, model=family)
    towers = [*towers_beside(library, pictures).values(), *([] if pictures is None else [pictures.vq])]
    outside = [name for name, module in library.named_modules() if any(module is one for one in towers)]
    adapters = load_adapters(library, source, config, outside=outside)
    for encoder in encoders.values():  # adapters may have put other modules in the towers' places
        if not isinstance(encoder, CodeEncoder):
            cast("TowerEncoder | RowEncoder", encoder).towers = nn.ModuleDict(towers_beside(library, pictures))
    if config.gradient_checkpointing:
        recompute(library)
    head = cast(nn.Module, library.get_output_embeddings())  # after adapters: they may have wrapped it
    text = TextDecoder(head, scale=logits.scale, softcap=logits.softcap, never=logits.never)
    decoders: dict[str, Decoder] = {"text": text}
    if pictures is not None:
        decoders["image"] = decoder_of(pictures, library, text)
    model = Model(
        assembly=MultimodalAssembly(library, preparer, writer, adapters),
        backbone=backbone,
        encoders=encoders,
        decoders=decoders,
        heads={} if source.folder is None else load_heads(source.folder, backbone.width),
    )
    freeze(model, config.freeze)
    _check_whole(library, model, [name for name in listed(library, processor) if name not in settings])
    return model


def _class_of(source: Source) -> type[_BaseAutoModelClass]:
    """What loads a checkpoint: of one that speaks as well, the class of the part that reads and answers."""
    name = THINKERS.get(str(source.config.get("model_type")))
    if name is None:
        return AutoModelForMultimodalLM
    _LOG.info("of this checkpoint its %s is loaded; what speaks is left out, here and in what is saved", name)
    return cast("type[_BaseAutoModelClass]", getattr(transformers, name))  # called alike: by `from_pretrained`


def _check_whole(library: PreTrainedModel, model: Model, absent: Sequence[str]) -> None:
    """Raise where something of the checkpoint would train outside of the model: no optimizer would ever see it.

    absent: modalities that it could take, and whose plugins are not here.
    """
    known = {id(value) for value in model.parameters()}
    lost = [name for name, value in library.named_parameters() if value.requires_grad and id(value) not in known]
    if lost:
        for name in absent:
            registry.modality(name)  # says why it cannot be used, and what mends that
        raise ModelError(
            "weights of this checkpoint belong to none of its parts",
            got=f"{type(library).__name__}: {', '.join(lost[:4])}",
            fix="use another family (docs/media.md lists those that were tried), and please tell us",
        )


_Parts = tuple[ProcessorWriter, Backbone, dict[str, Encoder]]


def _apart(
    library: PreTrainedModel, processor: ProcessorMixin, settings: Mapping[str, MediaSettings], config: ModelConfig
) -> _Parts:
    """Towers and language model of their own, proven to give what the whole gives."""
    writer = ProcessorWriter(library, processor, settings)
    backbone = CausalLMBackbone(library)
    towers = nn.ModuleDict(towers_of(library))
    encoders = {name: TowerEncoder(library, name, writer, towers) for name in sorted(writer.takes)}
    for name, encoder in encoders.items():  # before anything is changed: a family may turn out to be of another kind
        encoder.learn(tried(writer, name, encoder.rate)[1])
    probe.decide(backbone, config.sharing)
    prove(library, backbone, encoders, writer)
    return writer, backbone, dict(encoders)


def _whole(
    library: PreTrainedModel, processor: ProcessorMixin, settings: Mapping[str, MediaSettings], why: ModelError
) -> _Parts:
    """The whole model for every row: the decoder of this family looks at media itself."""
    writer = RowWriter(library, processor, settings)
    towers = nn.ModuleDict(towers_of(library))
    encoders: dict[str, Encoder] = {name: RowEncoder(library, name, writer, towers) for name in sorted(writer.takes)}
    _LOG.info("responses get rows of their own, and towers run for each: %s (%s)", why.what, why.got)
    return writer, WholeBackbone(library, f"{why.what}: {why.got}"), encoders


def load_processor(source: Source, config: ModelConfig, library: PreTrainedModel) -> ProcessorMixin:
    """The processor of a checkpoint, with the chat template the config names."""
    beside = source.folder is not None and any((source.folder / name).is_file() for name in _FILES)
    place = str(source.folder) if beside else source.base
    here = Path(place).is_dir()
    try:
        processor = cast(
            ProcessorMixin,
            AutoProcessor.from_pretrained(
                place,
                revision=None if here else config.revision,
                trust_remote_code=config.trust_remote_code,
                local_files_only=here,
            ),
        )
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the processor of {place!r} cannot be loaded",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:400]}",
            fix="run `modalign doctor`; if all is well there, save the processor into the folder again",
        ) from error
    if not isinstance(processor, ProcessorMixin):
        raise ModelError(
            "this checkpoint has no processor for its media",
            where=place,
            got=type(processor).__name__,
            fix=f"save it there: AutoProcessor.from_pretrained(BASE).save_pretrained({place!r})",
        )
    check_tokenizer(cast(PreTrainedTokenizerBase, processor.tokenizer), library, place)
    if (template := chat_template(config)) is not None:
        processor.chat_template = template
    return processor
