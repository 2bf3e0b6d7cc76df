"""A run's folder: where everything of one training run lies, and the right to write there.

config.yaml       the resolved config          checkpoints/    checkpoint-<step>/ ...
run.json          versions, plugins, command   final/          the model or its adapters
metrics.jsonl     one line per log             README.md       the model card
bad_rows.jsonl    rows that were skipped       run.lock        who writes here
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self, final

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from modalign.errors import ConfigError, ResourceError
from modalign.training.storage import runinfo, strictjson
from modalign.training.storage.checkpoint import sweep
from modalign.training.storage.durable import disk_errors, fsync_folder, make_folder, replace_file
from modalign.training.storage.metricslog import MetricsLog
from modalign.training.storage.runlock import NAME as LOCK
from modalign.training.storage.runlock import RunLock

log = logging.getLogger(__name__)


@final
class RunFolder:
    """The paths of a run. Anyone may read there; who writes has opened it with `RunFolder.open`.

    >>> RunFolder(Path("runs/first")).checkpoints.as_posix()
    'runs/first/checkpoints'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._metrics: MetricsLog | None = None

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def run_info(self) -> Path:
        """Versions, plugins and command."""
        return self.path / "run.json"

    @property
    def metrics_path(self) -> Path:
        """The metrics log, for readers."""
        return self.path / "metrics.jsonl"

    @property
    def bad_rows(self) -> Path:
        """Rows that were skipped."""
        return self.path / "bad_rows.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """The model, or its adapters, at the end."""
        return self.path / "final"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / "README.md"

    @property
    def metrics(self) -> MetricsLog:
        """The metrics log of an open folder."""
        if self._metrics is None:
            msg = f"{self.path} is not open for writing: use `with RunFolder.open(path) as run`"
            raise RuntimeError(msg)
        return self._metrics

    @classmethod
    @contextmanager
    def open(cls, path: str | Path, *, overwrite: bool = False, resume: bool = False) -> Iterator[Self]:
        """The folder, made if it is not there, held against other writers for the time of the block.

        overwrite: move an earlier run there aside, to `<name>.old-<n>`; nothing is deleted.
        resume: go on with the run that is there, if there is one.
        """
        if overwrite and resume:
            raise ConfigError(
                "a run folder is either resumed or written anew",
                got="overwrite_output_dir and resume_from_checkpoint",
                fix="drop one of them",
            )
        run = cls(Path(path).resolve())
        if run.path.exists() and not run.path.is_dir():
            raise ConfigError("output_dir is a file", where=str(run.path), fix="name a folder")
        with disk_errors(run.path, 0):
            make_folder(run.path, exist_ok=True)
        if run._is_used() and not run._is_run():
            raise ConfigError(
                "output_dir holds files that are no run",
                where=str(run.path),
                got=run._contents(),
                fix="name an empty or a new folder",
            )
        lock = RunLock(run.path)
        try:
            if run._is_used() and not resume:
                if not overwrite:
                    raise ConfigError(
                        "output_dir holds an earlier run",
                        where=str(run.path),
                        got=run._contents(),
                        fix="resume_from_checkpoint=auto goes on with it, overwrite_output_dir=true moves it aside",
                    )
                lock = run._move_aside(lock)
            with disk_errors(run.path, 0):
                make_folder(run.checkpoints, exist_ok=True)
                if not resume:
                    run.bad_rows.unlink(missing_ok=True)
            sweep(run.path)
            sweep(run.checkpoints)
            with MetricsLog(run.metrics_path) as run._metrics:
                yield run
        finally:
            run._metrics = None
            lock.release()

    def write_config(self, config: BaseModel | Mapping[str, object]) -> None:
        """Write the resolved config as YAML that reads back as the same config."""
        values = config.model_dump(mode="json") if isinstance(config, BaseModel) else to_jsonable_python(dict(config))
        replace_file(self.config, runinfo.yaml_bytes(values))

    def write_run_info(self, **more: object) -> None:
        """Write versions of Python, torch, modalign and its plugins, the command, and the names in the environment.

        more: further facts, by name. A resumed run keeps those of its earlier starts under `earlier`.
        """
        info = runinfo.collect(more)
        if earlier := runinfo.read(self.run_info):
            starts = earlier.pop("earlier", [])
            info["earlier"] = [*(starts if isinstance(starts, list) else []), earlier]
        replace_file(self.run_info, strictjson.dumps(info, indent=2))

    def _is_used(self) -> bool:
        """Whether there is anything to lose: a run that neither logged nor saved has left nothing."""
        worthless = {LOCK, self.config.name, self.run_info.name, self.bad_rows.name}
        return any(
            not (
                path.name in worthless
                or path.name.startswith("tmp-")
                or (path == self.metrics_path and path.stat().st_size == 0)
                or (path == self.checkpoints and not any(path.glob("checkpoint-*")))
            )
            for path in self.path.iterdir()
        )

    def _is_run(self) -> bool:
        logged = self.metrics_path.exists() and self.checkpoints.is_dir()
        return logged or (self.path / LOCK).exists() or self.run_info.exists()

    def _contents(self) -> str:
        names = sorted(path.name for path in self.path.iterdir() if path.name != LOCK)
        return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")

    def _move_aside(self, lock: RunLock) -> RunLock:
        """Move the earlier run aside, its lock with it, and take the lock of the new folder."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        with disk_errors(self.path, 0):
            self.path.rename(aside)
            try:
                make_folder(self.path)
            except FileExistsError as error:
                raise ResourceError(
                    "another run took the folder at the same moment",
                    where=str(self.path),
                    fix=f"use another output_dir; the earlier run is in {aside.name}",
                ) from error
            fsync_folder(self.path.parent)
        log.warning("the earlier run in %s is now in %s", self.path, aside)
        fresh = RunLock(self.path)
        lock.release()
        return fresh
