"""What is wrong with the parts of a composition, by registered names and small files: said before weights are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch

from modalign.comparison import Comparison
from modalign.config import DecoderConfig, EncoderConfig, ModelConfig
from modalign.connectors.conditioner import Conditioner, Wanted
from modalign.decoders.codes import CodeDecoder
from modalign.errors import ConfigError, DataError, ModelError, PluginError
from modalign.loading import check_path, claim
from modalign.registry import registry
from modalign_text.conversations import named
from modalign_text.media import unclosed

_WIDTHS: Final = ("hidden_size", "n_embd", "d_model", "dim")  #: what families call the width of their states


def check_parts(
    encoders: Mapping[str, EncoderConfig],
    decoders: Mapping[str, DecoderConfig],
    config: ModelConfig,
    said: Mapping[str, object],
    inside: Mapping[str, Path | None],
) -> None:
    """Raise where parts cannot be put together, as far as anything but weights tells.

    said: by the language model's config.json.
    inside: the folder that paths of `encoders` and `decoders` are relative to; None where they are a config's.
    """
    width = next((value for name in _WIDTHS if isinstance(value := said.get(name), int)), None)
    for name, one in encoders.items():
        known_modality(name, f"model.encoders.{name}")
        _check_encoder(name, one, width, inside["encoders"])
    for name, one in decoders.items():
        known_modality(name, f"model.decoders.{name}")
        if one.type is None:
            _check_decoder(name, one, config, width, inside["decoders"])
        else:
            _check_codes(name, one, one.type, encoders.get(name))
            check_path(one.path if inside["decoders"] is None else str(inside["decoders"] / one.path))


def known_modality(name: str, where: str) -> None:
    """Raise where nobody registers a modality, or who does cannot be used."""
    try:
        registry.modality(name)
    except PluginError as error:
        close = error.fix is not None and "did you mean" in error.fix
        fix = (
            error.fix
            if close or error.__cause__ is not None
            else f"correct the name, or install its plugin: pip install modalign-{name}, where it is called so"
        )
        raise type(error)(error.what, where=where, got=error.got, fix=fix) from error


def encoder_name(modality: str, config: EncoderConfig) -> str:
    """The registered name of the encoder that a config means."""
    entries = registry.entries("encoders")
    known = [name for name, entry in entries.items() if entry.declarations.get("modality") == modality]
    where = f"model.encoders.{modality}.type"
    if config.type is None and len(known) != 1:
        raise ConfigError(
            f"which encoder for {modality}?" if known else f"no installed plugin has an encoder for {modality}",
            where=where,
            got=f"registered: {', '.join(known) or 'none'}",
            fix="name one" if known else f"pip install 'modalign[{modality}]'; `modalign plugins` lists what failed",
        )
    name = config.type or known[0]
    registry.encoder(name)
    if name not in known:
        raise ConfigError(
            f"{name!r} is no encoder for {modality}",
            where=where,
            got=f"it is for {entries[name].declarations.get('modality')}",
            fix=f"registered for {modality}: {', '.join(known) or 'none'}",
        )
    return name


def no_connector(modality: str, width: int, out: int) -> ConfigError:
    """What is said of two widths that nothing joins."""
    return ConfigError(
        "these parts do not fit without a connector",
        where=f"model.encoders.{modality}.connector",
        got=f"embeddings of width {width} for states of width {out}",
        fix=f"name a connector: {', '.join(registry.entries('connectors'))}",
    )


def refuses(modalities: Iterable[str]) -> Callable[[Comparison], DataError | None]:
    """What says why a row is refused by a model that makes these media."""
    made = list(modalities)

    def check(one: Comparison) -> DataError | None:
        for field, response in named(one):
            for message in response.messages:
                words = "".join(part.value for part in message.parts if isinstance(part.value, str))
                if (error := unclosed(words, made, field)) is not None:
                    return error
        return None

    return check


def _check_encoder(modality: str, config: EncoderConfig, width: int | None, inside: Path | None) -> None:
    name = encoder_name(modality, config)
    path = config.path if inside is None else str(inside / config.path)
    found = registry.encoder(name).measure(path, revision=config.revision, **config.options)
    check_path(path)
    if config.connector is None:
        if found is not None and width is not None and found != width:
            raise no_connector(modality, found, width)
        return
    try:
        kind = registry.connector(config.connector.type)
    except PluginError as error:
        where = f"model.encoders.{modality}.connector.type"
        raise type(error)(error.what, where=where, got=error.got, fix=error.fix) from error
    if found is not None and width is not None:
        with torch.device("meta"), _at(f"model.encoders.{modality}.connector.options"):
            kind.make(found, width, **config.connector.options)


def _check_decoder(
    modality: str, config: DecoderConfig, whole: ModelConfig, width: int | None, inside: Path | None
) -> None:
    where = f"model.decoders.{modality}"
    path = config.path if inside is None else str(inside / config.path)
    try:
        _, loader = claim(ModelConfig(path=path, loader=config.loader, revision=config.revision))
    except ModelError as error:
        fix = (error.fix or "").replace("say which: loader=", f"say which: {where}.loader=")
        raise ModelError(error.what, where=where, got=error.got, fix=fix or None) from error
    gives = loader.gives(ModelConfig(path=path, revision=config.revision))
    if gives is not None and modality not in gives:
        raise makes_no(modality, path, sorted(gives))
    if width is not None:
        with torch.device("meta"), _at(f"{where}.connector"):
            Conditioner(width, Wanted(), **config.connector)


def _check_codes(modality: str, config: DecoderConfig, name: str, encoder: EncoderConfig | None) -> None:
    where = f"model.decoders.{modality}"
    try:
        codes = issubclass(registry.decoder(name), CodeDecoder)
    except PluginError as error:
        raise type(error)(error.what, where=f"{where}.type", got=error.got, fix=error.fix) from error
    entries = {key: one.declarations.get("modality") for key, one in registry.entries("decoders").items()}
    known = [key for key, of in entries.items() if of == modality]
    if not codes or entries.get(name, modality) != modality:
        raise ConfigError(
            f"{name!r} is {f'a decoder of {entries[name]}' if codes else 'no decoder of codes'}",
            where=f"{where}.type",
            got=name,
            fix=f"registered for {modality}: {', '.join(known) or 'none'}; leave it out where the path is a generator",
        )
    for setting in ("connector", "adapter", "loader"):
        if found := getattr(config, setting):
            raise ConfigError(
                "codes are written by the language model itself: nothing of theirs can be set so",
                where=f"{where}.{setting}",
                got=found,
                fix="remove it",
            )
    if encoder is not None:
        raise ConfigError(
            f"{modality} would be read twice: by an encoder, and as the codes that are written",
            where=f"model.encoders.{modality}",
            got=f"{encoder.path}, and {name}",
            fix="leave the encoder out: media of prompts are read as codes too",
        )


def makes_no(modality: str, path: str, gives: list[str]) -> ConfigError:
    """What is said of a model that makes something else."""
    where = f"model.decoders.{modality}"
    media = [one for one in gives if one != "text"]
    if not media:
        return ConfigError(
            "a decoder is a generator of media", where=where, got=f"{path}: text", fix="name a generator"
        )
    return ConfigError(
        f"this generator makes no {modality}",
        where=where,
        got=f"{path} makes {', '.join(media)}",
        fix=f"put it under model.decoders.{media[0]}, or name a generator of {modality}",
    )


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Within it what is wrong with a setting is said of its place in the config."""
    try:
        yield
    except ConfigError as error:
        place = f"{where}.{error.where}" if error.where else where
        raise ConfigError(error.what, where=place, got=error.got, fix=error.fix) from error
