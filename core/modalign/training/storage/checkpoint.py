"""Checkpoints of safetensors and JSON, committed in one step: a folder by its final name is whole, or it is refused.

    tmp-<step>-<id>/        written and flushed file by file; manifest.json comes last
    checkpoint-<step>/      the same folder, renamed: the commit
    trash-<step>-<id>/      a folder on its way out

Which checkpoint is the newest is found by looking, never stored. Writing belongs to rank 0 alone, which holds the run
folder's lock; the trainer lets the other ranks wait before and after.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from modalign.errors import CheckpointError
from modalign.failpoints import hit
from modalign.training.storage import manifest as manifests
from modalign.training.storage import strictjson, tensorfile
from modalign.training.storage.durable import (
    disk_errors,
    fsync_folder,
    make_folder,
    need_space,
    remove,
    write_file,
)
from modalign.training.storage.manifest import Manifest, folder_name, step_of
from modalign.training.storage.state import JSON, TrainState

log = logging.getLogger(__name__)

_TENSORS, _RNG, _STATE = "tensors.safetensors", "rng.safetensors", "state.json"
_FILES = frozenset((_TENSORS, _RNG, _STATE))


def save_checkpoint(checkpoints: Path, state: TrainState, *, keep: int = 2) -> Path:
    """Commit a checkpoint and return its folder; older ones beyond `keep` go once this one is verified.

    checkpoints: the folder they lie in; made if it is not there.
    keep: whole checkpoints to keep, at least 2: one alone would leave nothing to fall back to.

    Where this raises ResourceError (a full disk, no permission), earlier checkpoints are as they were.
    """
    if keep < 2:
        msg = f"keep is at least 2, not {keep}"
        raise ValueError(msg)
    body = strictjson.dumps({"step": state.step, "position": state.position, "data": state.data})
    size = tensorfile.size_of(state.tensors) + tensorfile.size_of(state.rng) + len(body)
    with disk_errors(checkpoints, size):
        make_folder(checkpoints, exist_ok=True)
        need_space(checkpoints, size)
        draft = checkpoints / f"tmp-{state.step}-{uuid.uuid4().hex}"
        try:
            path = _commit(draft, _write(draft, state, body))
        except BaseException:
            remove(draft)
            raise
        hit("checkpoint-verify")
        verify(path)
        _purge(checkpoints, state.step, keep)
    return path


def load_checkpoint(path: Path) -> TrainState:
    """The state that a checkpoint holds; raises CheckpointError, naming the file, where it is not whole.

    No parser sees a tensor or a number before the digest of its file was found right.
    """
    manifest, stamps = _verify(path)
    tensors, rng = tensorfile.read(path / _TENSORS), tensorfile.read(path / _RNG)
    try:
        body = strictjson.loads((path / _STATE).read_bytes())
        if not isinstance(body, dict):
            raise TypeError("no JSON object")
        if body["step"] != manifest.step:
            raise ValueError(f"step {body['step']} where the manifest says {manifest.step}")
        state = TrainState(
            step=cast(int, body["step"]),
            position=cast(int, body["position"]),
            tensors=tensors,
            data=cast(Mapping[str, JSON], body["data"]),
            rng=rng,
            world_size=manifest.world_size,
            digests=manifest.digests,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError("damaged checkpoint", where=str(path / _STATE), got=error) from error
    manifests.unchanged(path, stamps)
    return state


def verify(path: Path) -> Manifest:
    """What a checkpoint says of itself, once every file was found as its manifest says; else CheckpointError."""
    return _verify(path)[0]


def latest(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is whole, by its step; the log says which were passed over, and why."""
    for path in reversed(_listed(checkpoints)):
        try:
            verify(path)
        except CheckpointError as error:
            log.warning("passing over a checkpoint: %s", error)
        else:
            return path
    return None


def set_aside_after(checkpoints: Path, step: int) -> list[Path]:
    """Give checkpoints of later steps another name, `checkpoint-<step>.old-<n>`, and return where they went.

    A run that goes back to an earlier checkpoint calls this: what it left behind is another course, which must not
    be taken for the newest.
    """
    later = [path for path in _listed(checkpoints) if cast(int, step_of(path)) > step]
    return [_set_aside(path) for path in later]


def sweep(folder: Path) -> list[Path]:
    """Remove what a writer that died has left, and return it. The caller holds the run folder's lock."""
    left = sorted(path for kind in ("tmp", "trash") for path in folder.glob(f"{kind}-*-*"))
    for path in left:
        log.warning("removing what an earlier run left half done: %s", path)
        remove(path)
    return left


def _write(draft: Path, state: TrainState, body: bytes) -> Manifest:
    make_folder(draft)
    files = {
        _TENSORS: write_file(draft / _TENSORS, tensorfile.pieces(state.tensors)),
        _RNG: write_file(draft / _RNG, tensorfile.pieces(state.rng)),
        _STATE: write_file(draft / _STATE, [body]),
    }
    manifest = Manifest(step=state.step, world_size=state.world_size, digests=state.digests, files=files)
    write_file(draft / manifests.NAME, [manifest.dumps()])
    fsync_folder(draft)
    return manifest


def _commit(draft: Path, manifest: Manifest) -> Path:
    path = draft.with_name(folder_name(manifest.step))
    if path.exists():
        # A resumed run comes by here again, with the same bits; anything else by this name is another course.
        if _holds(path, manifest):
            remove(draft)
            return path
        _set_aside(path)
    hit("checkpoint-commit")
    draft.rename(path)
    hit("checkpoint-committed")
    fsync_folder(path.parent)
    return path


def _holds(path: Path, manifest: Manifest) -> bool:
    try:
        return verify(path) == manifest
    except CheckpointError as error:
        log.warning("replacing a checkpoint: %s", error)
        return False


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    log.warning("moving %s aside, to %s", path, aside.name)
    path.rename(aside)
    fsync_folder(path.parent)
    return aside


def _purge(checkpoints: Path, step: int, keep: int) -> None:
    """Remove checkpoints older than the `keep` newest whole ones up to a step, which was verified."""
    hit("checkpoint-purge")
    kept = 0
    for path in reversed(_listed(checkpoints)):
        if cast(int, step_of(path)) > step:
            continue
        if kept >= keep:
            hit("checkpoint-trash")
            trash = path.with_name(f"trash-{step_of(path)}-{uuid.uuid4().hex}")
            path.rename(trash)
            fsync_folder(checkpoints)
            hit("checkpoint-remove")
            remove(trash)
        elif _looks_whole(path):
            kept += 1
    hit("checkpoint-purged")


def _looks_whole(path: Path) -> bool:
    """Whether manifest and sizes are right. Contents were verified at the commit; reading them again costs a save."""
    try:
        files = manifests.read(path).files
        return all((path / name).stat().st_size == one.size for name, one in files.items())
    except (CheckpointError, OSError):
        return False


def _verify(path: Path) -> tuple[Manifest, dict[str, tuple[int, ...]]]:
    manifest = manifests.read(path)
    if set(manifest.files) != _FILES:
        names = ", ".join(sorted(manifest.files))
        raise CheckpointError("damaged manifest", where=str(path / manifests.NAME), got=f"files {names or 'none'}")
    stamps = {name: manifests.check_file(path, name, one) for name, one in manifest.files.items()}
    return manifest, stamps


def _listed(checkpoints: Path) -> list[Path]:
    """Folders with a checkpoint's name, by step."""
    if not checkpoints.is_dir():
        return []
    found = {step: path for path in checkpoints.iterdir() if (step := step_of(path)) is not None}
    return [found[step] for step in sorted(found)]
