"""Vision towers from folders and ids: which class of transformers, which weights, which processor."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)

from modalign.errors import CheckpointError, ModelError

_FAILURES = (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, AttributeError)
_INPUT = "pixel_values"


def load_tower(
    path: str, *, revision: str | None = None, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """A vision tower on the CPU, and its processor; of a checkpoint of two towers, text and vision, the vision one.

    dtype: of the weights; None takes the checkpoint's where there is a GPU, else float32.
    """
    here = Path(path).is_dir()
    config = tower_config(path, revision=revision)
    automatic = "auto" if torch.cuda.is_available() else torch.float32
    with _loading(path, "the vision tower"), _without_report():
        loaded = AutoModel.from_pretrained(
            path,
            config=config,
            dtype=automatic if dtype is None else dtype,
            revision=revision,
            trust_remote_code=False,
            local_files_only=here,
            use_safetensors=True,
            output_loading_info=True,
        )
        processor = AutoImageProcessor.from_pretrained(
            path, revision=revision, trust_remote_code=False, local_files_only=here
        )
    tower, found = cast("tuple[PreTrainedModel, dict[str, set[str]]]", loaded)
    # transformers would start these at random with a warning
    if missing := sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]])):
        raise ModelError(
            "the checkpoint lacks weights of its vision tower",
            where=path,
            got=f"{len(missing)} missing or of another shape: {', '.join(missing[:4])}",
            fix="take the tower's own checkpoint, or download it again",
        )
    return tower, cast(BaseImageProcessor, processor)


def tower_config(path: str, *, revision: str | None = None) -> PreTrainedConfig:
    """The config of the vision tower that a folder or an id holds, or a `ModelError`."""
    here = Path(path).is_dir()
    if not here and (Path(path).is_absolute() or path.startswith((".", "~"))):
        raise ModelError(f"no vision tower in {path!r}", got="no such folder", fix="check the path")
    with _loading(path, "the config"):
        config = cast(
            PreTrainedConfig,
            AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False, local_files_only=here),
        )
    found = getattr(config, "vision_config", None) or config
    if not isinstance(found, PreTrainedConfig):
        raise _none(path, config)
    with _loading(path, "the vision tower"):
        try:
            made = AutoModel._model_mapping[type(found)]  # what AutoModel asks, before any weight is read
        except KeyError as error:
            raise _none(path, config) from error
    if getattr(made, "main_input_name", None) != _INPUT:
        raise _none(path, config)
    return found


def _none(path: str, config: PreTrainedConfig) -> ModelError:
    return ModelError(
        f"no vision tower in {path!r}",
        got=f"a model of type {config.model_type}",
        fix="give a vision model that transformers' AutoModel knows (CLIP, SigLIP, DINOv2, ...)",
    )


@contextmanager
def _loading(path: str, what: str) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except SafetensorError as error:
        raise CheckpointError(
            "these weights are no safetensors file, whatever they are called",
            where=path,
            got=error,
            fix="download them again; if they are a renamed pickle, convert them where you trust them",
        ) from error
    except _FAILURES as error:
        raise ModelError(
            f"{what} of {path!r} cannot be loaded",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            fix="check that the folder is complete: config.json, preprocessor_config.json, weights in safetensors; "
            "if it is, run `modalign doctor`",
        ) from error


@contextmanager
def _without_report() -> Iterator[None]:
    """Without transformers' table of the text tower's weights, which are meant to be left out."""
    log = logging.getLogger("transformers.modeling_utils")

    def keep(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    log.addFilter(keep)
    try:
        yield
    finally:
        log.removeFilter(keep)
