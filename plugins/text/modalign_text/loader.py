"""A folder or an id becomes a model: any language model of transformers, its adapters and its reward heads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast, final

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from modalign.comparison import Comparison
from modalign.config import ModelConfig
from modalign.errors import CheckpointError, ConfigError, DataError, ModelError
from modalign.heads.storage import load_heads
from modalign.integrations import peft
from modalign.model import Model
from modalign.roles import Loader
from modalign_text import probe
from modalign_text.assembly import CausalLMAssembly
from modalign_text.backbone import CausalLMBackbone
from modalign_text.config import COMPOSITION, SPEAKS, THINKERS, Source, claims, made, resolve
from modalign_text.decoder import TextDecoder
from modalign_text.logits import postprocessing
from modalign_text.preparer import ChatPreparer

_LOG = logging.getLogger("modalign")


@final
class CausalLMLoader(Loader):
    """Any language model by id or folder, on the CPU: of words alone, or with towers for media.

    >>> from modalign_text.testing import tiny_model
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     model = CausalLMLoader().load(ModelConfig(path=str(tiny_model(folder))))
    >>> list(model.decoders), model.shares
    (['text'], True)
    """

    def claims(self, config: ModelConfig) -> bool:
        return claims(config)

    def gives(self, config: ModelConfig) -> frozenset[str] | None:
        return frozenset({"text"}) if not made(config) else None

    def refuses(self, config: ModelConfig) -> Callable[[Comparison], DataError | None] | None:
        if not (names := made(config)):
            return None
        from modalign_text.multimodal.planned import refuses

        return refuses(names)

    def load(self, config: ModelConfig) -> Model:
        source = resolve(config)
        if source.multimodal:
            from modalign_text.multimodal.loader import load_multimodal

            return load_multimodal(source, config)
        if (
            config.encoders
            or config.decoders
            or (source.folder is not None and (source.folder / COMPOSITION).is_file())
        ):
            from modalign_text.multimodal.composed import load_composed

            return load_composed(source, config)
        if config.media:
            raise ConfigError(
                "this model reads no media",
                where="model.media",
                got=", ".join(config.media),
                fix="name an encoder for each in model.encoders, or remove the section",
            )
        library = load_library(source, config, AutoModelForCausalLM)
        tokenizer = load_tokenizer(source, config, library)
        backbone = CausalLMBackbone(library)
        logits = postprocessing(library)
        probe.decide(backbone, config.sharing)
        adapters = load_adapters(library, source, config)
        if config.gradient_checkpointing:
            recompute(library)
        head = cast(nn.Module, library.get_output_embeddings())  # after adapters: they may have wrapped it
        return Model(
            assembly=CausalLMAssembly(
                library, tokenizer, ChatPreparer(tokenizer, model=type(library).__name__), adapters
            ),
            backbone=backbone,
            decoders={"text": TextDecoder(head, scale=logits.scale, softcap=logits.softcap, never=logits.never)},
            heads={} if source.folder is None else load_heads(source.folder, backbone.width),
        )


def load_library(source: Source, config: ModelConfig, automatic: type[_BaseAutoModelClass]) -> PreTrainedModel:
    """The checkpoint as transformers knows it: the one place where weights are read."""
    here = Path(source.base).is_dir()
    dtype = "auto" if torch.cuda.is_available() else torch.float32  # bf16 matmuls on a CPU are a hundred times slower
    attention = {} if config.attn_implementation is None else {"attn_implementation": config.attn_implementation}
    try:
        loaded = automatic.from_pretrained(
            source.base,
            dtype=dtype if config.dtype == "auto" else getattr(torch, config.dtype),
            revision=None if here else config.revision,
            trust_remote_code=config.trust_remote_code,
            local_files_only=here,
            use_safetensors=True,
            output_loading_info=True,
            **attention,
        )
    except SafetensorError as error:
        raise CheckpointError(
            "these weights are no safetensors file, whatever they are called",
            where=source.base,
            got=error,
            fix="download them again; if they are a renamed pickle, convert them where you trust them",
        ) from error
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"the model {source.base!r} cannot be loaded",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:600]}",
            fix="check that the folder is complete and its weights are safetensors, and the settings beside `path`",
        ) from error
    library, found = cast("tuple[PreTrainedModel, dict[str, set[str]]]", loaded)
    # transformers would start these at random with a warning, and training would go on as if nothing were wrong
    if missing := sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]])):
        raise ModelError(
            "the checkpoint lacks weights of its own architecture",
            where=source.base,
            got=f"{len(missing)} missing or of another shape: {', '.join(missing[:4])}",
            fix="download it again, or correct its config.json",
        )
    unexpected = sorted(map(str, found["unexpected_keys"]))
    if source.config.get("model_type") in THINKERS:
        unexpected = [name for name in unexpected if not name.startswith(SPEAKS)]
    if unexpected:
        _LOG.warning("%s holds weights its architecture does not use: %s", source.base, ", ".join(unexpected[:8]))
    return library


def load_tokenizer(
    source: Source, config: ModelConfig, library: PreTrainedModel, *, further: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, with the chat template the config names.

    further: whether it may have tokens that the model is yet to get embeddings for.
    """
    beside = source.folder is not None and (source.folder / "tokenizer_config.json").is_file()
    place = str(source.folder) if beside else source.base
    here = Path(place).is_dir()
    try:
        tokenizer = cast(
            PreTrainedTokenizerBase,
            AutoTokenizer.from_pretrained(
                place,
                revision=None if here else config.revision,
                trust_remote_code=config.trust_remote_code,
                local_files_only=here,
            ),
        )
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        raise ModelError(
            f"the tokenizer of {place!r} cannot be loaded",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:400]}",
            fix="save it there again: AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)",
        ) from error
    if not further:
        check_tokenizer(tokenizer, library, place)
    if (template := chat_template(config)) is not None:
        tokenizer.chat_template = template
    return tokenizer


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, library: PreTrainedModel, place: str) -> None:
    """Raise where a token has no embedding."""
    rows = cast(nn.Embedding, library.get_input_embeddings()).weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            "the tokenizer has tokens the model has no embedding for",
            where=place,
            got=f"{len(tokenizer)} tokens, {rows} embeddings",
            fix="use the tokenizer the model was saved with, or resize the model's embeddings",
        )


def chat_template(config: ModelConfig) -> str | None:
    """The template a config names instead of the checkpoint's; None where it names none."""
    if config.chat_template is None:
        return None
    try:
        return config.chat_template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the chat template cannot be read",
            where="model.chat_template",
            got=error,
            fix="give a Jinja file in UTF-8",
        ) from error


def load_adapters(
    library: PreTrainedModel,
    source: Source,
    config: ModelConfig,
    *,
    outside: Sequence[str] = (),
    tokens: Sequence[int] = (),
) -> peft.LoraAdapters | None:
    """The adapters a folder holds or a config asks for; None where there are none.

    outside: names of modules that `all-linear` leaves alone.
    tokens: ids whose embeddings train with them.
    """
    if source.adapter:
        assert source.folder is not None
        return peft.load(library, source.folder)
    if config.adapter is None:
        return None
    return peft.attach(library, config.adapter, base=source.base, outside=outside, tokens=tokens)


def recompute(library: PreTrainedModel) -> None:
    """Recompute activations in the backward pass; non-reentrant, so that frozen embeddings are no obstacle."""
    settings = {"use_reentrant": False}
    if not library.supports_gradient_checkpointing:
        raise ModelError(
            "this family cannot recompute its activations",
            got=type(library).__name__,
            fix="set gradient_checkpointing=False",
        )
    try:
        # transformers 5.23 renamed it, and its old name warns
        if hasattr(library, "activation_checkpointing_enable"):
            library.activation_checkpointing_enable(settings)
        else:
            library.gradient_checkpointing_enable(settings)
    except ValueError as error:
        raise ModelError(
            "this family cannot recompute its activations", got=error, fix="set gradient_checkpointing=False"
        ) from error
