"""A checkpoint's manifest: what its folder must hold, so that anything missing, cut, changed or swapped shows."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, final

from modalign import __version__
from modalign.errors import CheckpointError
from modalign.training.storage import strictjson
from modalign.training.storage.durable import BLOCK, Written, open_regular
from modalign.training.storage.foreign import refuse_foreign
from modalign.training.storage.state import JSON

NAME = "manifest.json"
VERSION = 1  #: of the checkpoint format that this release writes, and the newest that it reads
_NEEDS = "0.1.0"  # the oldest release that reads it
_FORMAT = "modalign-checkpoint"
_FOLDER = re.compile(r"checkpoint-(0|[1-9]\d*)")
_FILE = re.compile(r"[a-z]+\.(?:safetensors|json)")
_MOST = 1 << 20  # bytes of a manifest: it is the one file that is parsed before its digest is known
_BROKEN = "use another checkpoint: `auto` takes the newest one that is whole"


@final
@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint says of itself.

    step: optimizer steps done.
    world_size: ranks that trained.
    digests: of what the run stands on, by name.
    files: size and SHA-256 by name.
    written_by: the release that wrote it.
    """

    step: int
    world_size: int
    digests: Mapping[str, str]
    files: Mapping[str, Written]
    written_by: str = __version__

    def dumps(self) -> bytes:
        """The file's bytes: the one way of writing it, with the digest of all else as its last word."""
        body: dict[str, JSON] = {
            "format": _FORMAT,
            "version": VERSION,
            "written_by": self.written_by,
            "needs": _NEEDS,
            "step": self.step,
            "world_size": self.world_size,
            "digests": dict(self.digests),
            "files": {name: {"size": one.size, "sha256": one.sha256} for name, one in self.files.items()},
        }
        return _seal(body)


def folder_name(step: int) -> str:
    """The name of a checkpoint of a step."""
    return f"checkpoint-{step}"


def step_of(path: Path) -> int | None:
    """The step that a checkpoint's name says; None for any other name."""
    found = _FOLDER.fullmatch(path.name)
    return int(found[1]) if found else None


def read(folder: Path) -> Manifest:
    """The manifest of a checkpoint, itself checked; raises CheckpointError that says what is wrong with it."""
    path = folder / NAME
    if not path.is_file():
        refuse_foreign(folder)
        missing = f"{NAME} is missing" if folder.is_dir() else "nothing there"
        raise CheckpointError("not a whole checkpoint", where=str(folder), got=missing, fix=_BROKEN)
    try:
        with open(open_regular(path), "rb") as file:
            data = file.read(_MOST + 1)
        if len(data) > _MOST:
            raise ValueError(f"more than {_MOST} bytes")
        body = cast(dict[str, JSON], strictjson.loads(data))
        if not isinstance(body, dict) or body.get("format") != _FORMAT:
            raise ValueError("no manifest of a modalign checkpoint")
        _refuse_version(path, body)
        seal = body.pop("sha256", None)
        if (expected := hashlib.sha256(strictjson.dumps(body)).hexdigest()) != seal or _seal(body) != data:
            raise ValueError(f"digest {seal} where its content has {expected}")
        manifest = _parse(body)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError("damaged manifest", where=str(path), got=error, fix=_BROKEN) from error
    if step_of(folder.absolute()) != manifest.step:
        raise CheckpointError(
            "a checkpoint's folder has another name than it was given",
            where=str(folder),
            got=f"a checkpoint of step {manifest.step}",
            fix=f"name it {folder_name(manifest.step)} again",
        )
    return manifest


def check_file(folder: Path, name: str, expected: Written) -> tuple[int, ...]:
    """Raise unless a file holds what the manifest says; returns what tells it from any file put in its place later."""
    path = folder / name
    try:
        with open(open_regular(path), "rb", buffering=0) as file:
            stamp = _stamp(os.fstat(file.fileno()))
            sha, size = hashlib.sha256(), 0
            while block := file.read(BLOCK):
                sha.update(block)
                size += len(block)
    except OSError as error:
        reason = "the file is missing" if isinstance(error, FileNotFoundError) else f"unreadable: {error.strerror}"
        raise CheckpointError("damaged checkpoint", where=str(path), got=reason, fix=_BROKEN) from error
    if (size, sha.hexdigest()) != (expected.size, expected.sha256):
        raise CheckpointError(
            "damaged checkpoint",
            where=str(path),
            got=f"{size} bytes of sha256 {sha.hexdigest()} where the manifest says {expected.size} bytes of "
            f"{expected.sha256}",
            fix=_BROKEN,
        )
    return stamp


def unchanged(folder: Path, stamps: Mapping[str, tuple[int, ...]]) -> None:
    """Raise where a file is no longer the one that was checked."""
    for name, stamp in stamps.items():
        if _stamp((folder / name).stat(follow_symlinks=False)) != stamp:
            raise CheckpointError(
                "a checkpoint changed while it was read", where=str(folder / name), fix="end what writes there"
            )


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _seal(body: Mapping[str, JSON]) -> bytes:
    return strictjson.dumps({**body, "sha256": hashlib.sha256(strictjson.dumps(body)).hexdigest()})


def _refuse_version(path: Path, body: Mapping[str, JSON]) -> None:
    version = body.get("version")
    if type(version) is not int or version < 1:
        raise ValueError(f"version {version!r} of the format")
    if version > VERSION:
        raise CheckpointError(
            f"a checkpoint written by modalign {body.get('written_by')}, which needs modalign >= {body.get('needs')}",
            where=str(path),
            got=f"modalign {__version__}, which reads format {VERSION} and not {version}",
            fix=f"pip install 'modalign>={body.get('needs')}'",
        )


def _parse(body: Mapping[str, JSON]) -> Manifest:
    files, digests = body["files"], body["digests"]
    if not isinstance(files, dict) or not isinstance(digests, dict):
        raise TypeError("files and digests are objects")
    if wrong := [name for name in files if not _FILE.fullmatch(name)]:
        raise ValueError(f"no file of a checkpoint has the name {wrong[0]!r}")
    return Manifest(
        step=_natural(body["step"]),
        world_size=_natural(body["world_size"]),
        digests={name: str(digest) for name, digest in digests.items()},
        files={
            name: Written(size=_natural(one["size"]), sha256=str(one["sha256"]))
            for name, one in files.items()
            if isinstance(one, dict)
        },
        written_by=str(body["written_by"]),
    )


def _natural(value: JSON) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} where a count belongs")
    return value
