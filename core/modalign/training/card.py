"""The model card of a run: what it is, what it was made from, and how it came out."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import metadata

from packaging.requirements import Requirement

from modalign import __version__
from modalign.config import ModelConfig
from modalign.errors import PluginError
from modalign.objectives.base import Objective
from modalign.training.config import TrainConfig, TrainingConfig

_LEFT_OUT = ("perf/", "learning_rate", "grad_norm", "epoch", "num_tokens")


def objective_name(objective: Objective) -> str:
    """The name an objective is registered under; its class's where it is not registered."""
    from modalign.registry import registry

    kind = type(objective)
    for name, entry in registry.entries("objectives").items():
        if entry.target.endswith(f":{kind.__qualname__}"):
            try:
                if registry.objective(name) is kind:
                    return name
            except PluginError:
                continue
    return kind.__name__


def resolved(config: TrainingConfig, objective: Objective) -> dict[str, object]:
    """A run's config as `modalign train` reads it again."""
    said = {"name": objective_name(objective), **objective.model_dump(mode="json")}
    return {**config.model_dump(mode="json"), "objective": said}


def write_card(
    config: TrainingConfig,
    objective: Objective,
    metrics: Mapping[str, float],
    *,
    steps: int,
    data: Mapping[str, object],
    adapted: bool,
) -> str:
    """The card in Markdown.

    data: facts of the training data: name, size, digest, what was skipped.
    adapted: whether what was saved are adapters of a base model.
    """
    base = config.model if isinstance(config, TrainConfig) else None
    title = config.run_name or config.output_dir.name
    settings = ", ".join(f"{name} {json.dumps(value)}" for name, value in objective.model_dump(mode="json").items())
    shown = {name: value for name, value in metrics.items() if not name.startswith(_LEFT_OUT)}
    facts = "\n".join(f"| {name} | {_cell(value)} |" for name, value in data.items())
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in shown.items())
    return f"""\
{_front(base, adapted)}
# {title}

{"Adapters of" if adapted else "A model trained from"} {_link(base)}, with the objective \
**{objective_name(objective)}**{f" ({settings})" if settings else ""}: {steps} steps of \
{config.per_device_train_batch_size} x {config.gradient_accumulation_steps} comparisons per device, \
learning rate {config.learning_rate:g} ({config.lr_scheduler_type}), seed {config.seed}.

## Data

| | |
|---|---|
{facts}

## Metrics at the end

| metric | value |
|---|---|
{rows}

All of them by step: `metrics.jsonl` of the run folder; all settings: `config.yaml`.

## How to load it

{_loading(base, adapted)}

## Versions

{", ".join(f"{name} {version}" for name, version in _versions().items())}
"""


def _front(base: ModelConfig | None, adapted: bool) -> str:
    # what the hub reads; the library it finds by itself, from the files beside the card
    lines = ["---", "tags: [modalign]"]
    if base is not None and not base.path.startswith((".", "/", "~")):
        lines.append(f"base_model: {json.dumps(base.path)}")
        lines.append(f"base_model_relation: {'adapter' if adapted else 'finetune'}")
    return "\n".join([*lines, "---"])


def _link(base: ModelConfig | None) -> str:
    if base is None:
        return "a model that was assembled in Python"
    return f"`{base.path}`" + (f" at `{base.revision}`" if base.revision else "")


def _loading(base: ModelConfig | None, adapted: bool) -> str:
    note = "The folder holds adapters; their base is found by its name.\n\n" if adapted and base is not None else ""
    return f"""{note}```python
import modalign

model = modalign.load("path/to/this/folder")
```"""


def _versions() -> dict[str, str]:
    """Versions of what this run has imported, of all that modalign asks for in any extra."""
    asked = {Requirement(one).name for one in metadata.requires("modalign") or ()}
    installed = {one.name: one.version for one in metadata.distributions() if one.name in asked}
    used = sorted(name for name in installed if name in sys.modules)
    return {"modalign": __version__} | {name: installed[name] for name in used}


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
