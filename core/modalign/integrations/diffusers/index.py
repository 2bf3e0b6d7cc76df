"""What the small files of a pipeline's folder say, without importing diffusers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from modalign.errors import CheckpointError

INDEX: Final = "model_index.json"
ADAPTER: Final = "adapter_config.json"
OPTIONS: Final = "modalign_options.json"  #: beside what libraries write


def index(path: str, revision: str | None = None) -> Mapping[str, object] | None:
    """What a pipeline's model_index.json says; None where a folder or id has none.

    path: a folder, or an id on the hub, of which only that file is fetched.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        file = folder / INDEX
        return read_object(file) if file.is_file() else None
    if folder.exists() or path.startswith((".", "/", "~")):
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return read_object(Path(hf_hub_download(path, INDEX, revision=revision)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None  # no such repository, no such file in it, or no network: somebody else may know it


def adapted(path: str) -> str | None:
    """The folder or id of the pipeline that the adapters in a folder belong to; None where it holds none."""
    file = Path(path).expanduser() / ADAPTER
    if not file.is_file() or (file.parent / INDEX).is_file():
        return None
    base = read_object(file).get("base_model_name_or_path")
    return base if isinstance(base, str) else None


def options_of(path: str) -> Mapping[str, object]:
    """The settings a model in a folder was trained with, which it goes on with where nobody says otherwise."""
    file = Path(path).expanduser() / OPTIONS
    return read_object(file) if file.is_file() else {}


def read_object(file: Path) -> Mapping[str, object]:
    """What a file of JSON says, which has to be an object."""
    try:
        said: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "this file of the model is no JSON", where=str(file), got=error, fix="download it again"
        ) from error
    if not isinstance(said, dict):
        raise CheckpointError("expected an object", where=str(file), got=type(said).__name__, fix="download it again")
    return cast("dict[str, object]", said)
