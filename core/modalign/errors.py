"""One tree of errors: what was asked, what was found, what to do; an exit code per family."""

from __future__ import annotations

from typing import ClassVar


class ModalignError(Exception):
    """Base of every error modalign raises on purpose.

    The message reads: what went wrong, where, what was found, what to do.

    what: one sentence, the thing that was asked for and did not work.
    where: file, row and field, or the setting, where it was found.
    got: what was found there.
    fix: what to do about it, a command where there is one.

    >>> print(ModalignError("no modality 'smell'", got="registered: a, b", fix="install its plugin"))
    no modality 'smell'; found: registered: a, b; to mend: install its plugin
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "error"

    def __init__(self, what: str, *, where: str | None = None, got: object = None, fix: str | None = None) -> None:
        self.what = what
        self.where = where
        self.got = None if got is None else str(got)
        self.fix = fix
        head = what if where is None else f"{where}: {what}"
        found = None if self.got is None else f"found: {self.got}"
        mend = None if fix is None else f"to mend: {fix}"
        super().__init__("; ".join(part for part in (head, found, mend) if part))


class ConfigError(ModalignError, ValueError):
    """A setting, a flag or an argument that cannot be right."""

    exit_code = 2
    code = "config"


class ModelError(ModalignError, ValueError):
    """A model that cannot be loaded, or cannot do what was asked of it."""

    exit_code = 2
    code = "model"


class ShapeError(ModelError):
    """A tensor of another shape than the contract says."""

    code = "shape"


class KernelUnavailable(ModelError, RuntimeError):
    """An implementation of an op that was asked for by name and cannot run here, or not on this."""

    code = "kernel"


class DataError(ModalignError, ValueError):
    """A row, a file or a folder of data that cannot be used: names file, row and field."""

    exit_code = 3
    code = "data"

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        file: str | None = None,
        row: int | None = None,
        field: str | None = None,
        got: object = None,
        fix: str | None = None,
    ) -> None:
        self.file, self.row, self.field = file, row, field
        if where is None and file is not None:
            where = file if row is None else f"{file}:{row}"
            if field is not None:
                where = f"{where} field={field}"
        elif where is None and field is not None:
            where = f"field={field}"
        super().__init__(what, where=where, got=got, fix=fix)

    def at(self, *, file: str | None = None, row: int | None = None, field: str | None = None) -> DataError:
        """The same error, with its place filled in where it was unknown."""
        return type(self)(
            self.what,
            file=self.file or file,
            row=row if self.row is None else self.row,
            field=self.field or field,
            got=self.got,
            fix=self.fix,
        )


class TooLong(DataError):
    """A sample of more tokens than it may have."""

    code = "too-long"


class Skipped(DataError):
    """A row that says of itself that it is not to be used: left out and counted under ``what``, and no bad row."""

    code = "skipped"


class Foreign(DataError):
    """A row with a part that the model does not take: model and data do not go together, and no policy skips it."""

    code = "foreign"


class PluginError(ModalignError, RuntimeError):
    """A plugin, or a name that plugins register, that is missing, broken or claimed twice."""

    exit_code = 4
    code = "plugin"


class MissingExtra(PluginError, ImportError):
    """A plugin whose extra is not installed."""

    code = "missing-extra"


class CheckpointError(ModalignError, ValueError):
    """A checkpoint that is broken, unsafe, or of another run."""

    exit_code = 5
    code = "checkpoint"


class ResourceError(ModalignError, OSError):
    """Disk, memory, or a run folder that is in use."""

    exit_code = 6
    code = "resource"


class NumericError(ModalignError, ArithmeticError):
    """A loss or a gradient that is not a finite number."""

    exit_code = 7
    code = "numeric"


class DistributedError(ModalignError, RuntimeError):
    """Ranks that disagree, died or hang."""

    exit_code = 8
    code = "distributed"


class Preempted(ModalignError):
    """Training was asked to stop, saved, and can be resumed."""

    exit_code = 75
    code = "preempted"
