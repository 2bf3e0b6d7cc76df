"""What makes media behind a language model: denoisers that its states condition, and codes that it writes itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modalign.batch import Medium, own
from modalign.config import DecoderConfig, ModelConfig
from modalign.connectors.conditioner import Conditioner
from modalign.content import Part
from modalign.decoders.codes import CODES, CodeDecoder
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.decoders.generating import Buckets, GeneratorAssembly
from modalign.errors import CheckpointError, ConfigError, ModelError
from modalign.frozen import empty
from modalign.loading import load
from modalign.registry import registry
from modalign.roles import Adapters, Decoder, EncodedSegment
from modalign.timeline import Spans, no_time
from modalign_text.backbone import CausalLMBackbone
from modalign_text.config import COMPOSITION
from modalign_text.multimodal.planned import makes_no

CONDITIONERS: Final = "conditioners.safetensors"
FOLDER: Final = "decoders"


@dataclass(frozen=True, kw_only=True)
class Maker(ABC):
    """What makes media of one modality behind a language model.

    weight: of its segments in a response's log-likelihood.
    """

    decoder: Decoder
    weight: float

    @property
    @abstractmethod
    def joint(self) -> nn.Module:
        """What joins it to the language model; saved beside it, and trained with it."""

    @property
    def settings(self) -> Mapping[str, object]:
        """Of `joint`, as a config says them."""
        return empty()

    @property
    def adapters(self) -> Adapters | None:
        """Its own adapters."""
        return None

    @abstractmethod
    def compare(self, parts: Sequence[Part]) -> None:
        """Raise where media that were made for one another differ by more than their fitting hides."""

    @abstractmethod
    def store(self, folder: Path, *, merge: bool) -> None:
        """Write it as `load_makers` reads it, all but `joint`."""


@final
@dataclass(frozen=True, kw_only=True)
class Generator(Maker):
    """A denoiser, conditioned by states of the language model.

    decoder: with its conditioner.
    assembly: of the model that it was loaded from: how its media are fitted, and how it is saved.
    """

    decoder: DenoisingDecoder
    assembly: GeneratorAssembly

    @property
    def joint(self) -> Conditioner:
        assert self.decoder.conditioner is not None
        return self.decoder.conditioner

    @property
    def settings(self) -> Mapping[str, object]:
        return {key: value for key, value in self.joint.settings.items() if key != "seed"}

    @property
    def adapters(self) -> Adapters | None:
        return self.assembly.adapters

    def compare(self, parts: Sequence[Part]) -> None:
        self.assembly.words.compare(parts)

    def store(self, folder: Path, *, merge: bool) -> None:
        self.assembly.store(folder, merge=merge)

    def drawn(self, part: Part, stands: int) -> tuple[EncodedSegment, dict[str, Medium]]:
        """The segment that scores a medium, and the media it needs, by digest.

        stands: a token for its query positions, whose embeddings are learned.
        """
        target = self.assembly.words.target(part)
        segment, media = self.asked(stands)
        return replace(segment, digest=target.digest, spans=part.spans), {target.digest: target, **media}

    def asked(self, stands: int) -> tuple[EncodedSegment, dict[str, Medium]]:
        """The same of a medium that is yet to be made."""
        name, count, last = self.decoder.modality, len(self.joint.queries), self.joint.last
        if last:
            return EncodedSegment(modality=name, decoder=name, kind="draw", last=last, weight=self.weight), {}
        asks = Medium(modality=own(name), tensors={}, cost=count, cacheable=False, digest=own(name))
        query = (stands,) * count
        segment = EncodedSegment(
            modality=name, decoder=name, kind="draw", query=query, asks=asks.digest, weight=self.weight
        )
        return segment, {asks.digest: asks}


@final
@dataclass(frozen=True, kw_only=True)
class Speller(Maker):
    """Codes, which the language model writes one by one as it writes words, and reads in prompts."""

    decoder: CodeDecoder

    @property
    def joint(self) -> nn.Module:
        return nn.ModuleDict({"table": self.decoder.table, "head": self.decoder.head})

    def compare(self, parts: Sequence[Part]) -> None:
        """Media of one codec have as many codes each."""

    def store(self, folder: Path, *, merge: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.decoder.codec.save(folder)

    def spelt(self, medium: Medium, spans: Spans) -> EncodedSegment:
        """The segment that scores a medium, wherever it stands.

        medium: as `CodeDecoder.prepare` makes it.
        spans: the seconds of it that are scored: a `DataError`, since no code says when it is.
        """
        if spans:
            raise no_time(f"a medium of {self.decoder.modality} codes")
        name, codes = self.decoder.modality, tuple(medium.tensors[CODES].tolist())
        return EncodedSegment(
            modality=name, decoder=name, kind="token", stop=len(codes), codes=codes, weight=self.weight
        )


def opens(modality: str) -> str:
    """The token by which a model says that a medium follows."""
    return f"<|{modality}|>"


def closes(modality: str) -> str:
    """The token that stands behind a medium."""
    return f"<|/{modality}|>"


def teach(
    tokenizer: PreTrainedTokenizerBase, library: PreTrainedModel, modalities: Sequence[str], *, bare: bool
) -> list[int]:
    """Let a language model have tokens that open and close media; returns their ids.

    Those that are new start at the mean of all the others (Hewitt, 2021,
    https://nlp.stanford.edu/~johnhew/vocab-expansion.html), the same whenever the model is loaded, also where its
    tables have rows to spare.

    bare: whether the model was loaded without what it has learnt: adapters, and rows with them, are yet to come.
    """
    names = [name for one in modalities for name in (opens(one), closes(one))]
    new = [name for name in names if bare or name not in tokenizer.get_vocab()]
    tokens = [AddedToken(name, special=True, normalized=False) for name in names]
    tokenizer.add_tokens(cast("list[str]", tokens))  # its own AddedToken is the same class by another path
    if len(tokenizer) > cast(nn.Embedding, library.get_input_embeddings()).weight.shape[0]:
        library.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if new:
        fresh = torch.tensor([cast(int, tokenizer.convert_tokens_to_ids(name)) for name in new])
        with torch.no_grad():
            for table in (library.get_input_embeddings(), library.get_output_embeddings()):
                for value in () if table is None else table.parameters():
                    there = torch.ones(len(value), dtype=torch.bool)
                    there[fresh] = False
                    value[fresh] = value[there].mean(0)
    return [cast(int, tokenizer.convert_tokens_to_ids(name)) for name in names]


def load_makers(
    configs: Mapping[str, DecoderConfig],
    config: ModelConfig,
    backbone: CausalLMBackbone,
    inside: Path | None,
    *,
    adapted: bool,
) -> dict[str, Maker]:
    """What makes media in a composition, each with what joins it to this backbone.

    inside: the folder they were saved in, whose paths are relative to it; None where they are a config's.
    adapted: whether the language model trains by adapters: a generator without any of its own does not train then.
    """
    asking = [one for one in configs.values() if one.type is None and one.connector.get("reads") != "states"]
    if asking and not backbone.shares:
        raise ModelError(
            "media cannot be made behind this language model: queries are branches that the rest does not see",
            where="model.decoders",
            got=f"{type(backbone.decoder).__name__}: {backbone.reason}",
            fix="set connector.reads to states, or use a backbone whose attention reads a mask (Llama, Qwen, Gemma...)",
        )
    makers = {name: _maker(name, one, config, backbone, inside) for name, one in configs.items()}
    for name, one in configs.items():
        maker = makers[name]
        if isinstance(maker, Generator) and (not one.train or (adapted and one.adapter is None)):
            maker.decoder.denoiser.requires_grad_(False)
    if inside is not None and makers:
        _load_conditioners(makers, inside)
    return makers


def _maker(
    name: str, config: DecoderConfig, whole: ModelConfig, backbone: CausalLMBackbone, inside: Path | None
) -> Maker:
    path = config.path
    if inside is not None:
        if path != f"{FOLDER}/{name}":
            raise CheckpointError(
                "a saved model's decoder lies beside it",
                where=str(inside / COMPOSITION),
                got=path,
                fix=f"write {FOLDER}/{name} there, or name the decoder in model.decoders",
            )
        path = str(inside / path)
    if config.type is not None:
        return _speller(name, config, path, backbone)
    where = f"model.decoders.{name}"
    made = load(
        ModelConfig(
            path=path,
            loader=config.loader,
            revision=config.revision,
            dtype=whole.dtype,
            adapter=config.adapter,
            options=config.options,
            trust_remote_code=whole.trust_remote_code,
        )
    )
    if not isinstance(made.assembly, GeneratorAssembly) or name not in made.decoders:
        makes = made.decoders if isinstance(made.assembly, GeneratorAssembly) else ()
        raise makes_no(name, path, list(makes))  # of loaders that do not say so before
    decoder = cast(DenoisingDecoder, made.decoders[name])
    if isinstance(made.assembly.words.fit, Buckets):
        raise ConfigError(
            "a generator behind a language model makes media of one size",
            where=f"{where}.options",
            got="buckets, of several",
            fix="leave them out",
        )
    try:
        decoder.conditioner = Conditioner(backbone.width, decoder.denoiser.wanted(), **config.connector)
    except ConfigError as error:
        place = f"{where}.connector" + (f".{error.where}" if error.where else "")
        raise ConfigError(error.what, where=place, got=error.got, fix=error.fix) from error
    decoder.denoiser.hears_states()
    return Generator(decoder=decoder, assembly=made.assembly, weight=config.weight)


def _speller(name: str, config: DecoderConfig, path: str, backbone: CausalLMBackbone) -> Speller:
    assert config.type is not None
    kind = cast("type[CodeDecoder]", registry.decoder(config.type))
    decoder = kind.load(path, modality=name, width=backbone.width, revision=config.revision, **config.options)
    return Speller(decoder=decoder, weight=config.weight)


def save_makers(
    makers: Mapping[str, Maker], configs: Mapping[str, DecoderConfig], folder: Path, *, merge: bool
) -> dict[str, DecoderConfig]:
    """Write denoisers and conditioners into a folder; returns what says where they are."""
    state = _conditioners(makers).state_dict()
    still = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    save_file(still, folder / CONDITIONERS, metadata={"format": "pt"})
    said: dict[str, DecoderConfig] = {}
    for name, maker in makers.items():
        maker.store(folder / FOLDER / name, merge=merge)
        said[name] = configs[name].model_copy(
            update={
                "path": f"{FOLDER}/{name}",
                "revision": None,
                "connector": dict(maker.settings),
                "adapter": None if merge else configs[name].adapter,
                "options": {},
            }
        )
    return said


def _load_conditioners(makers: Mapping[str, Maker], folder: Path) -> None:
    try:
        _conditioners(makers).load_state_dict(load_file(folder / CONDITIONERS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            "what conditions this model's decoders cannot be read",
            where=str(folder / CONDITIONERS),
            got=" ".join(str(error).split())[:300],
            fix="copy the file from the run again",
        ) from error


def _conditioners(makers: Mapping[str, Maker]) -> nn.ModuleDict:
    return nn.ModuleDict({name: one.joint for name, one in makers.items()})
