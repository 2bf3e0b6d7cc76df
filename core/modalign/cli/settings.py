"""Settings from a YAML file, checked against pydantic models, with the place of every mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from modalign.cli.flags import flags_of, model_in, nearest
from modalign.errors import ConfigError

_MOST_BYTES = 1 << 20
_MOST_DEPTH = 64
_REFUSED = ("Alias", "Anchor", "Tag", "Directive")  #: tokens of YAML that settings have no use for

_TAGS = ("str", "int", "float", "bool", "tuple", "path")  #: names pydantic gives to members of a union

#: pydantic's words that a user of YAML does not use
_WORDS = {"tuple": "list", "dictionary": "mapping"}


def read_yaml(path: Path) -> CommentedMap:
    """A YAML 1.2 mapping with its line numbers; duplicate keys, anchors, tags and oversized files are refused."""
    text = _text(path)
    loader = YAML(typ="rt", pure=True)
    loader.allow_duplicate_keys = False
    try:
        _scan(text, path)  # before the loader, which recurses into whatever depth there is
        document = loader.load(text)
    except MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
        raise ConfigError("not valid YAML", where=f"{path}{line}", got=error.problem, fix="mend that line") from error
    except YAMLError as error:
        raise ConfigError("not valid YAML", where=str(path), got=error, fix="mend the file") from error
    except ConfigError:
        raise
    except ValueError as error:  # a date that is none
        raise ConfigError("not valid YAML", where=str(path), got=error, fix="quote what is no date") from error
    if not isinstance(document, CommentedMap):
        kind = "an empty file" if document is None else type(document).__name__.removeprefix("Commented")
        raise ConfigError(
            "a config file is a mapping of settings", where=str(path), got=kind, fix="write lines like `seed: 1`"
        )
    return document


def plain(value: object) -> object:
    """The document as ordinary dicts and lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(member) for key, member in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(member) for member in value]
    return value


def check(model: type[BaseModel], document: CommentedMap, path: Path) -> None:
    """Raise a `ConfigError` that names line and key for every mistake in a file, but for keys that flags may add."""
    try:
        model.model_validate(plain(document))
    except ValidationError as error:
        if found := [one for one in error.errors() if one["type"] != "missing"]:
            raise _together(model, found, lambda loc: f"{path}:{_line(document, loc)}") from error


def explain(model: type[BaseModel], error: ValidationError) -> ConfigError:
    """A pydantic error about settings that came from flags, in our words."""
    return _together(model, error.errors(), lambda loc: None)


def _text(path: Path) -> str:
    if not path.is_file():
        raise ConfigError("no such config file", where=str(path), got="no file there", fix="check the path")
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise ConfigError(
                "the config file is too large", where=str(path), got=f"{size} bytes", fix="keep it under 1 MB"
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the config file cannot be read", where=str(path), got=error, fix="write it as a text file in UTF-8"
        ) from error


def _scan(text: str, path: Path) -> None:
    depth = 0
    for token in YAML(typ="rt", pure=True).scan(text):
        kind = type(token).__name__.removesuffix("Token")
        depth += kind.endswith(("MappingStart", "SequenceStart")) - kind.endswith(
            ("BlockEnd", "MappingEnd", "SequenceEnd")
        )
        where = f"{path}:{token.start_mark.line + 1}"
        if kind in _REFUSED:
            raise ConfigError(
                f"a config file has no YAML {kind.lower()}s",
                where=where,
                got=f"a YAML {kind.lower()}",
                fix="write it out",
            )
        if depth > _MOST_DEPTH:
            raise ConfigError(
                "the config file is nested too deeply",
                where=where,
                got=f"{depth} levels",
                fix=f"write at most {_MOST_DEPTH}",
            )


def _together(
    model: type[BaseModel], found: Sequence[ErrorDetails], place: Callable[[Sequence[object]], str | None]
) -> ConfigError:
    """All mistakes as one error, a line each; one for each key, though a union has one for each of its members."""
    errors = {_key(one): _mistake(model, one, place(one["loc"])) for one in reversed(found)}
    if len(errors) == 1:
        return next(iter(errors.values()))
    return ConfigError("\n".join(str(error) for error in reversed(errors.values())))


def _mistake(model: type[BaseModel], error: ErrorDetails, where: str | None) -> ConfigError:
    key = _key(error)
    if error["type"] == "extra_forbidden":
        known = [".".join(flag.keys) for flag in flags_of(model)]
        near = nearest(key, _siblings(model, key)) or nearest(key, known)
        hint = f"did you mean {near!r}?" if near else f"known are {', '.join(sorted(_siblings(model, key)))}"
        return ConfigError(f"unknown setting {key!r}", where=where, got=_short(error["input"]), fix=hint)
    if error["type"] == "missing":
        return ConfigError(f"setting {key!r} is missing", where=where, got="nothing", fix=f"give --{key} VALUE")
    said = " ".join(_WORDS.get(word, word) for word in error["msg"].split(" or instance of ")[0].split())
    return ConfigError(
        f"setting {key!r}: {said[:1].lower()}{said[1:]}",
        where=where,
        got=_short(error["input"]),
        fix=_meaning(model, key),
    )


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 100 else f"{shown[:97]}..."


def _key(error: ErrorDetails) -> str:
    """The setting that an error is about, without what pydantic says of members of unions and of numbers in lists."""
    *before, last = error["loc"] or ("",)
    names = [part for part in before if isinstance(part, str) and part.isidentifier()]
    if error["type"] == "extra_forbidden" or (isinstance(last, str) and last.isidentifier() and last not in _TAGS):
        names.append(str(last))
    return ".".join(names)


def _siblings(model: type[BaseModel], key: str) -> list[str]:
    """The settings beside a key, with all that leads to them."""
    parent = key.rpartition(".")[0]
    return [f"{parent}.{name}".lstrip(".") for name in _fields(model, parent)]


def _meaning(model: type[BaseModel], key: str) -> str | None:
    """What a setting is, in the words of its own documentation."""
    parent, _, last = key.rpartition(".")
    field = _fields(model, parent).get(last)
    return None if field is None or not field.description else f"{last} is: {' '.join(field.description.split())}"


def _fields(model: type[BaseModel], path: str) -> Mapping[str, FieldInfo]:
    """The fields of the model at a path; none where there is no model."""
    inner: type[BaseModel] | None = model
    for name in filter(None, path.split(".")):
        field = None if inner is None else inner.model_fields.get(name)
        inner = None if field is None else model_in(field.annotation)
    return {} if inner is None else inner.model_fields


def _line(document: CommentedMap, loc: Sequence[object]) -> int:
    line, node = 1, cast(object, document)
    for part in loc:
        keys = {str(key): key for key in node} if isinstance(node, CommentedMap) else {}
        if not isinstance(node, CommentedMap) or part not in keys:
            break
        line = node.lc.key(keys[str(part)])[0] + 1
        node = node[keys[str(part)]]
    return line
