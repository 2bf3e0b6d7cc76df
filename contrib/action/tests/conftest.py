"""What every test runs under, and the tiny models that all share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# before torch is imported, and for the processes that tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model, a video tower, and a folder of actions with an expert in it."""
    from modalign_action.testing import tiny_expert, tiny_space
    from modalign_text.testing import tiny_model
    from modalign_video.testing import tiny_video

    folder = tmp_path_factory.mktemp("parts")
    tiny_model(folder / "words", scale=4.0)
    tiny_video(folder / "tower", "frames-over-clip")
    tiny_space().save(folder / "bins")
    tiny_expert(folder / "expert")
    return folder
