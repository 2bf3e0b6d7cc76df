"""`modalign train OBJECTIVE --model M --data D`, or `modalign train config.yaml --objective.beta 0.2`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, cast

from cyclopts import App, Parameter
from pydantic import ValidationError, create_model

from modalign.cli.flags import merged, nearest, parse_flags
from modalign.cli.settings import check, explain, plain, read_yaml
from modalign.errors import ConfigError
from modalign.training.config import TrainConfig

_HELP = """Train a model.

Usage: modalign train OBJECTIVE --model PATH --data PATH [OPTIONS]
       modalign train CONFIG.yaml [OPTIONS]

  modalign train dpo --model HuggingFaceTB/SmolLM2-135M-Instruct --data pairs.jsonl --model.adapter.r 16
  modalign train runs/dpo/config.yaml --objective.beta 0.2 --output_dir runs/dpo-2

Objectives: {objectives}
Every setting of one: modalign train OBJECTIVE --help"""

_YAML = (".yaml", ".yml")


def train(
    *tokens: Annotated[str, Parameter(allow_leading_hyphen=True)],
) -> int:
    """Train a model: an objective and flags, or a config file and flags that override it."""
    from modalign.registry import registry

    if not tokens or tokens[0] in ("--help", "-h"):
        print(_HELP.format(objectives=", ".join(sorted(registry.entries("objectives")))))
        return 0 if tokens else ConfigError.exit_code
    config = configure(tokens[0], tokens[1:])
    if config is None:  # --help was printed
        return 0
    from modalign.training.job import run

    result = run(config)
    print(f"trained {result.steps} steps; the model is in {config.output_dir / 'final'}")
    return 0


def configure(
    target: str, tokens: Sequence[str] = (), *, edit: Callable[[dict[str, object]], None] | None = None
) -> TrainConfig | None:
    """The resolved config of an objective's name or a config file, overridden by flags. None if they asked for help.

    edit: changes what the file says, before the flags go over it.
    """
    document: dict[str, object] = {}
    path = Path(target)
    if path.suffix in _YAML:
        read = read_yaml(path)
        document = cast(dict[str, object], plain(read))
        job = job_of(_name(document, path))
        if isinstance(objective := document.get("objective"), dict):
            objective.pop("name")
            read["objective"].pop("name")
        else:
            document.pop("objective")
            read.pop("objective")
        check(job, read, path)
    elif path.exists() and not target.isidentifier():
        raise ConfigError(
            "neither an objective nor a config file",
            where=target,
            got="a folder" if path.is_dir() else f"a {path.suffix or 'nameless'} file",
            fix=f"modalign train {path / 'config.yaml' if path.is_dir() else 'CONFIG.yaml'}",
        )
    else:
        job = job_of(target)
    if edit is not None:
        edit(document)
    if any(token in ("--help", "-h") for token in tokens):
        _print_help(job, target)
        return None
    try:
        return job.model_validate(merged(document, parse_flags(job, tokens)))
    except ValidationError as error:
        raise explain(job, error) from error


@cache
def job_of(name: str) -> type[TrainConfig]:
    """The model of a whole job with this objective."""
    from modalign.registry import registry

    objective = registry.objective(name)
    return create_model(f"{objective.__name__}Job", __base__=TrainConfig, objective=(objective, objective()))


def _name(document: Mapping[str, object], path: Path) -> str:
    objective = document.get("objective")
    name = objective.get("name") if isinstance(objective, Mapping) else objective
    if isinstance(name, str):
        return name
    near = nearest("objective", [key for key in document if key not in TrainConfig.model_fields])
    raise ConfigError(
        "a config file names its objective",
        where=str(path),
        got=f"objective: {objective!r}"
        if "objective" in document
        else f"a setting {near!r}"
        if near
        else "no objective",
        fix="write objective: {name: dpo}",
    )


def _print_help(job: type[TrainConfig], target: str) -> None:
    def settings(*, config: TrainConfig) -> None:
        del config

    settings.__annotations__["config"] = Annotated[job, Parameter(name="*")]
    about = inspect.getdoc(job.model_fields["objective"].annotation) or ""
    settings.__doc__ = about.partition(">>>")[0].replace("``", "`")
    app = App(
        name=f"modalign train {target}",
        usage=f"Usage: modalign train {target} --model PATH --data PATH [OPTIONS]\n",
        help_format="plaintext",
        help_flags=[],
        version_flags=[],
        default_parameter=Parameter(negative_iterable=(), name_transform=str),
    )
    app.default(settings)
    app.help_print([])
