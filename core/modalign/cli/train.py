"""`modalign train OBJECTIVE --model M --data D`, or `modalign train config.yaml --objective.beta 0.2`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, cast

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict
from pydantic import ValidationError, create_model

from modalign.cli.settings import check, explain, plain, read_yaml
from modalign.errors import ConfigError
from modalign.objectives.base import Objective
from modalign.training.config import TrainConfig

_SHORT = ("--model", "--data", "--eval-data", "--eval_data")  #: flags that stand for the path of what they name

_HELP = """Train a model.

Usage: modalign train OBJECTIVE --model PATH --data PATH [OPTIONS]
       modalign train CONFIG.yaml [OPTIONS]

  modalign train dpo --model HuggingFaceTB/SmolLM2-135M-Instruct --data pairs.jsonl --model.adapter.r 16
  modalign train runs/dpo/config.yaml --objective.beta 0.2 --output_dir runs/dpo-2

Objectives: {objectives}
Every setting of one: modalign train OBJECTIVE --help"""


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
    from modalign.training.run import run

    run(config)
    return 0


def configure(target: str, tokens: Sequence[str] = ()) -> TrainConfig | None:
    """The resolved config of an objective's name or a config file, overridden by flags. None if they asked for help."""
    document: dict[str, object] = {}
    path = Path(target)
    if path.suffix in (".yaml", ".yml"):
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
    else:
        job = job_of(target)
    return _parse(job, _spell(tokens), document, target)


def resolved(config: TrainConfig) -> dict[str, object]:
    """A config as the file that `modalign train` reads again, the objective under its registered name."""
    found = config.model_dump(mode="json")
    return {**found, "objective": {"name": name_of(type(config.objective)), **found["objective"]}}


def name_of(objective: type[Objective]) -> str:
    """The name an objective is registered under."""
    from modalign.registry import registry

    target = f"{objective.__module__}:{objective.__qualname__}"
    for name, entry in registry.entries("objectives").items():
        if entry.target == target or registry.objective(name) is objective:
            return name
    raise ConfigError(f"{objective.__name__} is registered by no plugin", fix="register it with register_objectives")


@cache
def job_of(name: str) -> type[TrainConfig]:
    """The model of a whole job with this objective."""
    from modalign.registry import registry

    objective = registry.objective(name)
    return create_model(f"{objective.__name__}Job", __base__=TrainConfig, objective=(objective, objective()))


def _name(document: Mapping[str, object], path: Path) -> str:
    objective = document.get("objective")
    name = objective.get("name") if isinstance(objective, Mapping) else objective
    if not isinstance(name, str):
        raise ConfigError(
            "a config file names its objective", where=str(path), got=repr(objective), fix="objective: {name: dpo}"
        )
    return name


def _spell(tokens: Sequence[str]) -> list[str]:
    """`--model M` is short for `--model.path M`, and so for data."""
    spelt: list[str] = []
    for token in tokens:
        flag, equals, value = token.partition("=")
        spelt.append(f"{flag}.path{equals}{value}" if flag in _SHORT else token)
    return spelt


def _parse(
    job: type[TrainConfig], tokens: Sequence[str], document: dict[str, object], target: str
) -> TrainConfig | None:
    found: list[TrainConfig] = []

    def collect(*, config: TrainConfig) -> None:
        found.append(config)

    collect.__annotations__["config"] = Annotated[job, Parameter(name="*")]
    collect.__doc__ = f"{(job.model_fields['objective'].annotation or job).__doc__}"
    app = App(
        name=f"modalign train {target}",
        config=Dict(document, source=target),
        help_format="plaintext",
        version_flags=[],
        default_parameter=Parameter(negative_iterable=()),
    )
    app.default(collect)
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ValidationError):
            raise explain(job, cause) from error
        raise ConfigError(str(error), fix=f"see `modalign train {target} --help`") from error
    return found[0] if found else None
