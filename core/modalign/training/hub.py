"""Uploading the final model, where a run asks for it."""

from __future__ import annotations

from pathlib import Path

from modalign.errors import MissingExtra, ResourceError
from modalign.training.config import TrainingConfig


def check_hub(config: TrainingConfig) -> None:
    """Raise before any work where an upload at the end could not even start."""
    if config.push_to_hub:
        try:
            import huggingface_hub  # noqa: F401
        except ImportError as error:
            raise MissingExtra(
                "uploading needs huggingface_hub",
                where="push_to_hub",
                got=error,
                fix="pip install huggingface_hub, or leave push_to_hub out",
            ) from error


def push(folder: Path, config: TrainingConfig) -> str:
    """Upload a folder and return its address. The run's own copy stays whatever happens."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        made = api.create_repo(config.hub_model_id or config.run_name or config.output_dir.name, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Upload a model trained by modalign")
    except Exception as error:  # a hub can fail in as many ways as a network
        raise ResourceError(
            "the final model was not uploaded, but is kept",
            where=str(folder),
            got=f"{type(error).__name__}: {error}",
            fix="log in with `hf auth login`, check hub_model_id, and upload the folder with `hf upload`",
        ) from error
    return str(made)
