"""Environments of strangers: virtual environments that see what is installed here, and take one distribution more."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path
from typing import Final

OURS: Final = ("modalign", "modalign_text", "modalign_image", "modalign_audio", "modalign_video")


def make(place: Path) -> Path:
    """The Python of a new environment that sees the installed packages, and the modalign that is tested."""
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    lines = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    ours = [str(Path(found.origin).parents[1]) for one in OURS if (found := find_spec(one)) and found.origin]
    # addsitedir, unlike a plain path, also reads the .pth files there: modalign itself may be an editable install
    seen = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    said = [f"import site; site.addsitedir({one!r})\n" for one in dict.fromkeys(seen)]
    said += [f"import sys; sys.path.insert(0, {one!r})\n" for one in dict.fromkeys(ours) if one not in seen]
    Path(lines.stdout.strip(), "seen.pth").write_text("".join(said))
    return python


def install(python: Path, source: Path) -> None:
    """Build and install a distribution by its own pyproject, without an index."""
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--no-input"]
    done = subprocess.run(
        [*pip, "install", "--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir", str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def run(python: Path, *arguments: str) -> str:
    """What a command of that environment prints, outside this folder and this environment; it has to succeed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(
        [python, *arguments], cwd=python.parent, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
