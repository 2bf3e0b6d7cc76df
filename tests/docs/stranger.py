"""A virtual environment that sees what is installed here, into which distributions are built and installed by pip."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path


def environment(place: Path) -> Path:
    """The Python of a new one."""
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    (purelib,) = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").splitlines()
    # the packages that are tested come first, whatever an editable install of modalign says
    lines = [f"{one}\n" for one in sorted(_homes())]
    # addsitedir, unlike a plain path, also reads the .pth files there: modalign itself may be an editable install
    seen = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines += [f"import site; site.addsitedir({one!r})\n" for one in sorted(seen)]
    Path(purelib, "seen.pth").write_text("".join(lines))
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


def run(python: Path, *arguments: str, cwd: Path | None = None) -> str:
    """What a process of it prints, which must end well."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(
        [python, *arguments], cwd=cwd or python.parent, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _homes() -> set[str]:
    names = ("modalign", *(f"modalign_{one}" for one in ("text", "image", "audio", "video")))
    found = [find_spec(name) for name in names]
    return {str(Path(one.origin).parents[1]) for one in found if one is not None and one.origin is not None}
