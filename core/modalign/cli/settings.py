"""Settings from a YAML file and from flags, checked against pydantic models, with the place of every mistake."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from modalign.errors import ConfigError

_MOST_BYTES = 1 << 20
_MOST_DEPTH = 64


def read_yaml(path: Path) -> CommentedMap:
    """A YAML 1.2 mapping with its line numbers; duplicate keys, anchors, tags and oversized files are refused."""
    if not path.is_file():
        raise ConfigError("no such config file", where=str(path), fix="check the path")
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise ConfigError(
            "the config file is too large", where=str(path), got=f"{size} bytes", fix="keep it under 1 MB"
        )
    text = path.read_text(encoding="utf-8")
    loader = YAML(typ="rt", pure=True)
    loader.allow_duplicate_keys = False
    try:
        for token in YAML(typ="rt", pure=True).scan(text):
            if type(token).__name__ in ("AliasToken", "AnchorToken", "TagToken"):
                kind = type(token).__name__.removesuffix("Token").lower()
                line = token.start_mark.line + 1
                raise ConfigError(f"a config file has no YAML {kind}s", where=f"{path}:{line}", fix="write it out")
        document = loader.load(text)
    except MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
        raise ConfigError("not valid YAML", where=f"{path}{line}", got=error.problem, fix="mend that line") from error
    except YAMLError as error:
        raise ConfigError("not valid YAML", where=str(path), got=error, fix="mend the file") from error
    if not isinstance(document, CommentedMap):
        raise ConfigError("a config file is a mapping of settings", where=str(path), got=type(document).__name__)
    if _depth(document) > _MOST_DEPTH:
        raise ConfigError("the config file is nested too deeply", where=str(path), fix=f"at most {_MOST_DEPTH} levels")
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
        found = [one for one in error.errors() if one["type"] != "missing"]
        if found:
            raise ConfigError(
                "\n".join(_sentence(model, one["loc"], one["msg"], one["type"], one["input"]) for one in found),
                where=f"{path}:{_line(document, found[0]['loc'])}",
            ) from error


def explain(model: type[BaseModel], error: ValidationError) -> ConfigError:
    """A pydantic error in our words, with flags spelt as a user writes them."""
    sentences = [_sentence(model, one["loc"], one["msg"], one["type"], one["input"]) for one in error.errors()]
    return ConfigError("\n".join(sentences), fix="see the command's --help")


def _sentence(model: type[BaseModel], loc: Sequence[object], message: str, kind: str, given: object) -> str:
    names = [str(part) for part in loc if _is_key(part)]
    key = ".".join(names)
    if kind == "extra_forbidden":
        known = _fields(model, names[:-1])
        close = difflib.get_close_matches(names[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
        return f"unknown setting {key!r}; {hint}"
    if kind == "missing":
        return f"setting {key!r} is missing"
    return f"setting {key!r}: {message[:1].lower()}{message[1:]}; found: {given!r}"


def _is_key(part: object) -> bool:
    """Whether a step of pydantic's location is a key of the document, not the name of a union's member."""
    return isinstance(part, int) or (isinstance(part, str) and part.isidentifier() and part not in ("str", "int"))


def _fields(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    for name in path:
        field = model.model_fields.get(name)
        options = [] if field is None else [field.annotation, *get_args(field.annotation)]
        models = [one for one in options if isinstance(one, type) and issubclass(one, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)


def _line(document: CommentedMap, loc: Sequence[object]) -> int:
    line, node = 1, cast(object, document)
    for part in loc:
        if not isinstance(node, CommentedMap) or part not in node:
            break
        line = node.lc.key(part)[0] + 1
        node = node[part]
    return line


def _depth(value: object) -> int:
    if isinstance(value, Mapping):
        return 1 + max((_depth(member) for member in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(member) for member in value), default=0)
    return 0
