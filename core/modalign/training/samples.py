"""Whatever a trainer is given as data, prepared for its model and its objective."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeAlias

from modalign.errors import DataError
from modalign.model import Model
from modalign.objectives.base import Objective
from modalign.training.loader import Samples

Source: TypeAlias = object  #: a path, an id on the hub, a `DataConfig`, rows, comparisons, `Data`, or what is prepared


def prepare_samples(source: Source, model: Model, objective: Objective, *, workers: int = 0) -> Samples:
    """Every sample that the objective can use, found in one pass over the data.

    workers: processes that encode rows.
    """
    if not isinstance(source, Samples):
        from modalign.data import prepare, read

        data = read(source)
        source = prepare(data, model.assembly.preparer, objective.needs, data.config, workers=workers)
    if len(source) == 0:
        raise DataError(
            "there is nothing to train on",
            got="no sample is left",
            fix="look at why rows were left out: modalign data check PATH",
        )
    return source


def data_digest(samples: Samples) -> str:
    """What tells one set of samples from another: the rows, which of them are used, and their lengths in tokens."""
    from modalign.data import Prepared

    if not isinstance(samples, Prepared):
        return f"{len(samples)} samples"
    said = (samples.data.digest, samples.kept, samples.tokens)
    return hashlib.sha256(repr(said).encode()).hexdigest()


def data_facts(samples: Samples) -> dict[str, object]:
    """What a model card says of the data."""
    from modalign.data import Prepared

    if not isinstance(samples, Prepared):
        return {"samples": len(samples)}
    facts: dict[str, object] = {"name": samples.data.name, "samples": len(samples), "digest": samples.data.digest}
    if samples.skipped:
        facts["skipped"] = ", ".join(f"{count} {reason}" for reason, count in samples.skipped.most_common())
    if samples.truncated:
        facts["truncated"] = samples.truncated
    return facts


def write_bad_rows(samples: Samples, path: Path) -> None:
    """List the rows that were skipped, if there are any."""
    from modalign.data import Prepared
    from modalign.data import write_bad_rows as write

    if isinstance(samples, Prepared) and samples.bad_rows:
        write(path, samples.bad_rows)
