"""A power cut at any instant of a save, replayed on a model of a disk; and writers with one step missing, all caught.

The model keeps what a file system may keep: of a file what was flushed, of a folder the names that were flushed, and
any of the later changes of names without the others.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from modalign.training.storage import checkpoint as writer
from modalign.training.storage.checkpoint import save_checkpoint, verify
from modalign.training.storage.state import TrainState

Op = tuple  # (kind, path, ...): create, write with its bytes, fsync, mkdir, rename with the new path, remove


@dataclass(eq=False)
class Node:
    """A file or a folder: what it holds, and what of that is on the disk."""

    folder: bool
    data: bytes = b""
    kept: bytes = b""
    names: dict[str, "Node"] = field(default_factory=dict)
    kept_names: dict[str, "Node"] = field(default_factory=dict)
    pending: list[tuple[str | None, str | None, "Node"]] = field(default_factory=list)  # (old, new, what)

    def move(self, old: str | None, new: str | None, node: "Node") -> None:
        if old is not None:
            del self.names[old]
        if new is not None:
            self.names[new] = node
        self.pending.append((old, new, node))

    def flush(self) -> None:
        self.kept, self.kept_names, self.pending = self.data, dict(self.names), []


class Disk:
    """Replays operations under one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = self._load(root)

    def _load(self, path: Path) -> Node:
        if path.is_file():
            return Node(folder=False, data=path.read_bytes(), kept=path.read_bytes())
        names = {one.name: self._load(one) for one in path.iterdir()}
        return Node(folder=True, names=names, kept_names=dict(names))

    def at(self, path: Path) -> Node:
        node = self.top
        for name in path.relative_to(self.root).parts:
            node = node.names[name]
        return node

    def do(self, op: Op) -> None:
        kind, path, *more = op
        parent = self.top if path == self.root else self.at(path.parent)
        match kind:
            case "create" | "mkdir":
                parent.move(None, path.name, Node(folder=kind == "mkdir"))
            case "write":
                self.at(path).data += more[0]
            case "fsync":
                self.at(path).flush()
            case "rename":
                parent.move(path.name, more[0].name, self.at(path))
            case _:
                parent.move(path.name, None, self.at(path))

    def after_power_loss(self) -> Iterator[dict[str, Node]]:
        """What the root folder may hold: no pending change of its names, each of them alone, or all."""
        yield self.top.kept_names
        yield self.top.names
        for old, new, node in self.top.pending:
            names = {name: one for name, one in self.top.kept_names.items() if name != old}
            yield names | ({new: node} if new is not None else {})


def materialise(names: dict[str, Node], where: Path, *, entries_survive: bool) -> None:
    where.mkdir()
    for name, node in names.items():
        if node.folder:
            inner = node.names if entries_survive else node.kept_names
            materialise(inner, where / name, entries_survive=entries_survive)
        else:
            (where / name).write_bytes(node.kept)


def whole(folder: Path) -> set[int]:
    found = set()
    for path in folder.glob("checkpoint-*"):
        try:
            found.add(verify(path).step)
        except ValueError:
            continue
    return found


def state(step: int) -> TrainState:
    return TrainState(step=step, position=step, tensors={"w": torch.full((3,), float(step))})


def record(monkeypatch, root: Path) -> list[Op]:
    """The operations of saving step 3 under a root folder."""
    ops: list[Op] = []
    paths: dict[int, Path] = {}
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "mkdir", "rename")}

    def do_open(path, flags, *rest, **more):
        file = real["open"](path, flags, *rest, **more)
        paths[file] = Path(path)
        if flags & os.O_CREAT:
            ops.append(("create", Path(path)))
        return file

    def do_write(file, data):
        ops.append(("write", paths[file], bytes(data)))
        return real["write"](file, data)

    def do_fsync(file):
        ops.append(("fsync", paths[file]))
        real["fsync"](file)

    def do_mkdir(path, *rest, **more):
        real["mkdir"](path, *rest, **more)
        ops.append(("mkdir", Path(path)))

    def do_rename(old, new):
        ops.append(("rename", Path(old), Path(new)))
        real["rename"](old, new)

    def do_remove(path):
        ops.append(("remove", path))
        shutil.rmtree(path)

    with monkeypatch.context() as patch:
        for name, stand_in in (
            ("open", do_open),
            ("write", do_write),
            ("fsync", do_fsync),
            ("mkdir", do_mkdir),
            ("rename", do_rename),
        ):
            patch.setattr(os, name, stand_in)
        patch.setattr(writer, "remove", do_remove)
        save_checkpoint(root, state(3))
    return [op for op in ops if root == op[1] or root in op[1].parents]


def violations(ops: list[Op], before: Path, scratch: Path) -> Iterator[str]:
    """Where a power cut leaves fewer than two whole checkpoints, or takes one that the save had promised."""
    for count in reversed(range(len(ops) + 1)):  # most faults show late
        disk = Disk(before)
        for op in ops[:count]:
            disk.do(op)
        for names in disk.after_power_loss():
            for entries_survive in (True, False):
                shutil.rmtree(scratch, ignore_errors=True)
                materialise(names, scratch, entries_survive=entries_survive)
                left = whole(scratch)
                if len(left) < 2:
                    yield f"after {count} operations {left or 'nothing'} is left"
                if count == len(ops) and 3 not in left:
                    yield "the save returned and its checkpoint is gone"


@pytest.fixture
def trace(tmp_path, monkeypatch) -> tuple[list[Op], Path]:
    root, before = tmp_path / "checkpoints", tmp_path / "before"
    save_checkpoint(root, state(1))
    save_checkpoint(root, state(2))
    shutil.copytree(root, before)
    ops = record(monkeypatch, root)
    moved = [tuple(before / one.relative_to(root) if isinstance(one, Path) else one for one in op) for op in ops]
    return moved, before


def test_a_power_cut_at_any_instant_leaves_two_whole_checkpoints(trace, tmp_path):
    ops, before = trace
    # 4 files: create, write, fsync; 1 folder made and flushed; 2 renames, each flushed; 1 removal
    assert len(ops) >= 4 * 3 + 2 + 4 + 1
    assert list(violations(ops, before, tmp_path / "scratch")) == []


def test_a_writer_with_any_flush_left_out_or_any_step_moved_is_caught(trace, tmp_path):
    ops, before = trace
    flushes = [number for number, op in enumerate(ops) if op[0] == "fsync"]
    assert len(flushes) == 4 + 1 + 2
    commit, trash = (number for number, op in enumerate(ops) if op[0] == "rename")
    mutants = {
        f"without the flush of {ops[number][1].name}": ops[:number] + ops[number + 1 :] for number in flushes[:6]
    }
    mutants["the older removed before the commit is flushed"] = [
        *ops[: commit + 1],
        ops[trash],
        *ops[commit + 1 : trash],
        *ops[trash + 1 :],
    ]
    mutants["the older removed before the newer is committed"] = [
        *ops[:commit],
        ops[trash],
        *ops[trash + 1 :],
        *ops[commit:trash],
    ]
    mutants["the older removed at the start"] = [*ops[trash:], *ops[:trash]]
    assert len(mutants) >= 8
    for name, mutant in mutants.items():
        assert next(violations(mutant, before, tmp_path / "scratch"), None), f"not caught: {name}"
