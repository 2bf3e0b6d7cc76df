"""Video towers of transformers from folders and ids, with their own processors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoVideoProcessor, PreTrainedConfig, PreTrainedModel
from transformers.video_processing_utils import BaseVideoProcessor

from modalign.errors import CheckpointError, ModelError

INPUTS: Final = ("pixel_values", "pixel_values_videos")  #: what video towers call a clip, "b t c h w"
_FAILURES = (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, AttributeError)


def load_tower(
    path: str, *, revision: str | None = None, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, BaseVideoProcessor]:
    """A video tower on the CPU, in eval mode, and its processor; from safetensors only, and without code of its own.

    dtype: of the weights; None takes the checkpoint's where there is a GPU, else float32.
    """
    here = Path(path).is_dir()
    config = tower_config(path, revision=revision)
    automatic = "auto" if torch.cuda.is_available() else torch.float32
    with _loading(path, "the video tower"):
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
        processor = AutoVideoProcessor.from_pretrained(
            path, revision=revision, trust_remote_code=False, local_files_only=here
        )
    tower, found = cast("tuple[PreTrainedModel, dict[str, set[str]]]", loaded)
    # transformers would start these at random with a warning
    if missing := sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]])):
        raise ModelError(
            "the checkpoint lacks weights of its video tower",
            where=path,
            got=f"{len(missing)} missing or of another shape: {', '.join(missing[:4])}",
            fix="take the tower's own checkpoint, or download it again",
        )
    return tower, cast(BaseVideoProcessor, processor)


def tower_config(path: str, *, revision: str | None = None) -> PreTrainedConfig:
    """The config of the video tower that a folder or an id holds, or a `ModelError`."""
    here = Path(path).is_dir()
    if not here and (Path(path).is_absolute() or path.startswith((".", "~"))):
        raise ModelError(f"no video tower in {path!r}", got="no such folder", fix="check the path")
    with _loading(path, "the config"):
        config = cast(
            PreTrainedConfig,
            AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False, local_files_only=here),
        )
    _check_kind(path, config)
    return config


def _check_kind(path: str, config: PreTrainedConfig) -> None:
    """Raise where AutoModel makes no tower of clips of it."""
    made = AutoModel._model_mapping.get(type(config), None)
    if getattr(made, "main_input_name", None) not in INPUTS or not hasattr(config, "tubelet_size"):
        framed = getattr(config, "num_frames", None)
        if framed is None or getattr(made, "main_input_name", None) not in INPUTS:
            raise ModelError(
                f"no video tower in {path!r}",
                got=f"a model of type {config.model_type}",
                fix="give a model of clips that AutoModel knows (VideoMAE, ViViT, TimeSformer); towers of pictures "
                "read clips with the encoder `frames`",
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
            fix="check that the folder is complete: config.json, a processor's config, weights in safetensors; "
            "if it is, run `modalign doctor`",
        ) from error
