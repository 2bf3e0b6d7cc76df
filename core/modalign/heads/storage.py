"""Reward heads in files beside a checkpoint: their weights, and a manifest that says what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final, cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from modalign.errors import CheckpointError, ModalignError
from modalign.registry import registry
from modalign.roles import Head

MANIFEST: Final = "modalign.json"  #: what modalign adds to a checkpoint: which heads it has
HEADS: Final = "heads.safetensors"


def save_heads(heads: nn.ModuleDict, folder: Path) -> None:
    """Write reward heads beside a checkpoint: their weights, and a manifest that says what they are."""
    kinds = {registry.head(name): name for name in registry.entries("heads")}
    said: dict[str, dict[str, object]] = {}
    for name, head in heads.items():
        assert isinstance(head, Head)
        if type(head) not in kinds:
            raise CheckpointError(
                f"the head {name!r} is of a class that no plugin registers",
                got=type(head).__name__,
                fix="register it with `register_heads`, so that it can be loaded again",
            )
        said[name] = {
            "type": kinds[type(head)],
            "dimensions": list(head.dimensions),
            "settings": dict(settings_of(head)),
        }
    state = {name: value.detach().cpu().clone().contiguous() for name, value in heads.state_dict().items()}
    save_file(state, folder / HEADS, metadata={"format": "pt"})
    manifest = {"modalign": version("modalign"), "heads": said}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def load_heads(folder: Path, width: int) -> dict[str, Head]:
    """The reward heads saved in a folder; none where it says nothing of any.

    width: of the backbone's states.
    """
    if not (folder / MANIFEST).is_file():
        return {}
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        state = load_file(folder / HEADS)
        heads = {str(name): _make(one, width) for name, one in manifest["heads"].items()}
        nn.ModuleDict(heads).load_state_dict(state)
    except (
        *(ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError),
        *(SafetensorError, ModalignError),
    ) as error:
        raise CheckpointError(
            "the reward heads of this checkpoint cannot be read",
            where=str(folder),
            got=f"{type(error).__name__}: {error}",
            fix=f"copy {MANIFEST} and {HEADS} from the run again, or remove both to load the model without heads",
        ) from error
    return heads


def settings_of(head: Head) -> Mapping[str, object]:
    """What `registry.head(type)(width, **settings)` makes the head of again; one that does not say has dimensions."""
    found = getattr(head, "settings", None)
    return cast("Mapping[str, object]", found) if isinstance(found, Mapping) else {"dimensions": list(head.dimensions)}


def _make(said: Mapping[str, object], width: int) -> Head:
    """The head an entry of the manifest describes; before heads had settings, it said dimensions only."""
    dimensions = tuple(cast("list[str]", said["dimensions"]))
    settings = cast("dict[str, object]", said.get("settings", {"dimensions": dimensions}))
    head = registry.head(cast(str, said["type"]))(width, **settings)
    if head.dimensions != dimensions:
        raise ValueError(f"dimensions {', '.join(dimensions)}, but its settings make {', '.join(head.dimensions)}")
    return head
