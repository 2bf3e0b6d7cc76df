"""A folder or an id becomes a model: the loader that claims it loads it."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from modalign.config import ModelConfig
from modalign.errors import ConfigError, ModalignError, ModelError, PluginError
from modalign.registration.admission import describe_error
from modalign.registry import Registry, registry

if TYPE_CHECKING:
    from modalign.model import Model
    from modalign.roles import Loader

_PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})


def load(model: str | Path | ModelConfig, **settings: object) -> Model:
    """The model that a folder, an id on the model hub or a config names.

    settings: fields of `ModelConfig`; they go before those of a config.
    """
    config = configure(model, **settings)
    _, loader = claim(config)
    return loader.load(config)


def configure(model: str | Path | ModelConfig, **settings: object) -> ModelConfig:
    """The config that `load` would use.

    >>> configure("some/model", dtype="bfloat16").dtype
    'bfloat16'
    """
    stated = model.model_dump(exclude_unset=True) if isinstance(model, ModelConfig) else {"path": str(model)}
    try:
        return ModelConfig.model_validate(stated | settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        known = list(ModelConfig.model_fields)
        if first["type"] != "extra_forbidden":
            raise ConfigError(f"{key}: {first['msg']}", got=repr(first["input"])) from error
        close = get_close_matches(key, known, n=1)
        raise ConfigError(
            f"no setting {key!r} of a model",
            got=f"settings: {', '.join(known)}",
            fix=f"did you mean {close[0]!r}?" if close else None,
        ) from error


def claim(config: ModelConfig) -> tuple[str, Loader]:
    """The loader that would load a config, by name; nothing but small files is read."""
    plugins = registry
    check_path(config.path)
    if config.loader is not None:
        return config.loader, plugins.loader(config.loader)
    loaders = plugins.loaders()
    claims = [name for name, loader in loaders.items() if _claims(name, loader, config, plugins)]
    if len(claims) == 1:
        return claims[0], loaders[claims[0]]
    if claims:
        raise ModelError(
            f"more than one loader claims {config.path!r}",
            got=", ".join(claims),
            fix=f"say which: loader={claims[0]!r}",
        )
    failed = [failure for record in plugins.plugins() for failure in record.failures]
    found = f"loaders: {', '.join(loaders) or 'none'}"
    known = [said for loader in loaders.values() if (said := loader.knows(config)) is not None]
    raise ModelError(
        f"no loader knows the model {config.path!r}",
        got="; ".join(
            [*known, found, _contents(config.path), *(f"not usable: {one.what} ({one.got})" for one in failed)]
        ),
        fix="; or ".join(dict.fromkeys(one.fix for one in failed if one.fix))
        or "check the path: a model folder has a config.json and weights in safetensors",
    )


def _claims(name: str, loader: Loader, config: ModelConfig, plugins: Registry) -> bool:
    try:
        return loader.claims(config)
    except ModalignError:
        raise
    except Exception as error:
        owner = plugins.entries("loaders")[name].owner
        raise PluginError(
            f"the loader {name!r} of {owner} failed to say whether it knows {config.path!r}",
            got=describe_error(error),
            fix="name another loader, or tell the plugin's authors",
        ) from error


def check_path(path: str) -> None:
    """Refuse what is surely no model before any loader looks at it, or the hub is asked for it."""
    place = Path(path).expanduser()
    if place.is_file() and place.suffix in _PICKLES:
        raise ModelError(
            f"{path} is a pickle, which can run code when it is read",
            got=f"a {place.suffix} file",
            fix="convert the checkpoint to safetensors, and give the folder that holds it with its config.json",
        )
    local = path.startswith((".", "~")) or place.is_absolute() or path.count("/") > 1
    if local and not place.exists():
        raise ModelError(f"no model at {path}", got="no such file or folder", fix="check the path")


def _contents(path: str) -> str:
    place = Path(path).expanduser()
    if not place.is_dir():
        return "it is no folder here"
    names = sorted(file.name for file in place.iterdir())
    return f"in the folder: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "an empty folder"
