"""What a run folder says about the run: versions, plugins and command, and never a secret."""

from __future__ import annotations

import io
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import cast

import torch
from pydantic_core import to_jsonable_python
from ruamel.yaml import YAML

from modalign import __version__
from modalign.hookspecs import GROUP
from modalign.training.storage import strictjson
from modalign.training.storage.state import JSON

_SECRET_FLAG = re.compile(r"(?i)(token(?!s)|secret|password|passwd|api[-_]?key|credential)")
_SECRET_VALUE = re.compile(r"\b(?:hf_|sk-|ghp_|xox[a-z]-)[\w-]{6,}|(?<=://)[^/@\s]+(?=@)")
_HIDDEN = "***"


def collect(more: Mapping[str, object]) -> dict[str, JSON]:
    """What there is to say of this process. Of the environment only names: values are where secrets live."""
    plugins: list[JSON] = [
        {
            "name": point.name,
            "distribution": None if point.dist is None else point.dist.name,
            "version": None if point.dist is None else point.dist.version,
        }
        for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name)
    ]
    extra = cast(dict[str, JSON], to_jsonable_python(dict(more)))
    return {
        "modalign": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": redact(sys.argv),
        "environment": sorted(os.environ),
        "plugins": plugins,
        **extra,
    }


def read(path: Path) -> dict[str, JSON] | None:
    """What an earlier start has written; None where that cannot be read."""
    try:
        info = strictjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return info if isinstance(info, dict) else None


def redact(command: Sequence[str]) -> list[str]:
    """A command without its secrets: values of flags that are named after one, and words that look like one.

    >>> redact(["train", "--hub-token", "abc", "--data=https://me:pw@host/x"])
    ['train', '--hub-token', '***', '--data=https://***@host/x']
    """
    clean: list[str] = []
    hide = False
    for word in command:
        flag, equals, _ = word.partition("=")
        secret = flag.startswith("-") and _SECRET_FLAG.search(flag) is not None
        if hide and not word.startswith("-"):
            clean.append(_HIDDEN)
        elif secret and equals:
            clean.append(f"{flag}={_HIDDEN}")
        else:
            clean.append(_SECRET_VALUE.sub(_HIDDEN, word))
        hide = secret and not equals
    return clean


def yaml_bytes(values: object) -> bytes:
    """A YAML 1.2 document, in blocks."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.BytesIO()
    yaml.dump(values, stream)
    return stream.getvalue()
