"""Parts of a pipeline whose weights leave memory, and come back from where the pipeline was loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast, final

import torch
from torch import Tensor, nn

from modalign.caching.fingerprint import fingerprint
from modalign.errors import ModelError
from modalign.integrations.diffusers.family import device_of, type_of
from modalign.integrations.diffusers.index import INDEX

_MARK: Final = "_modalign_away"  #: on a part, so that whoever shares it knows too
_STAND: Final = "_modalign_stand"


class _Class(Protocol):
    """A class of diffusers or of transformers."""

    from_pretrained: Callable[..., nn.Module]


def place_of(path: str, revision: str | None = None) -> Path:
    """The folder here that a pipeline was loaded from; of an id that of its commit, whatever the hub has later.

    path: a folder, or an id on the hub.
    revision: of an id.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder.absolute()
    from huggingface_hub import hf_hub_download

    # not `snapshot_download`, which asks for files of the repository that a pipeline never has
    return Path(hf_hub_download(path, INDEX, revision=revision, local_files_only=True)).parent


@final
@dataclass(frozen=True, kw_only=True)
class _Away:
    """What is known of a part without its weights.

    folder, name: where they lie.
    dtype: most of them are of.
    weights: their fingerprint.
    """

    folder: Path
    name: str
    dtype: torch.dtype
    weights: str


def away(part: nn.Module) -> bool:
    """Whether the weights of a part have left memory."""
    return hasattr(part, _MARK)


def release(part: nn.Module, name: str, folder: Path) -> None:
    """Free the memory of a part's weights; its buffers and settings stay, which a network may ask it for.

    The weights are none, and not on `meta`: whatever moves, sends or counts a model's parameters does not meet them.

    name: in its pipeline.
    folder: of the pipeline.
    """
    weights = _weights(part)
    if away(part) or not weights:
        return
    mark = _Away(folder=folder, name=name, dtype=type_of(part), weights=fingerprint(weights))
    take(part)
    setattr(part, _MARK, mark)


def restore(part: nn.Module, device: torch.device) -> None:
    """Have a part's weights back, by its library's own loading; a `ModelError` where they are others than they were."""
    mark = cast("_Away | None", getattr(part, _MARK, None))
    if mark is None:
        return
    found = _weights(_load(part, mark))
    if fingerprint(found) != mark.weights:
        raise ModelError(
            f"the weights of this pipeline's {mark.name} are not those that it was trained with",
            where=str(mark.folder / mark.name),
            got="other weights than had been loaded: they were changed since, in memory or in the folder",
            fix="save the pipeline whole and train what was saved, or leave precompute_features out",
        )
    moved = {  # those that several modules share stay one
        id(value): nn.Parameter(value.detach().to(device), requires_grad=False) for value in {*found.values()}
    }
    put(part, {path: moved[id(value)] for path, value in found.items()})
    delattr(part, _MARK)


def take(part: nn.Module) -> dict[str, nn.Parameter]:
    """Take a part's weights out of it, by their paths: nothing moves, sends, counts or trains them any more."""
    weights = _weights(part)
    for path in weights:
        owner, leaf = _owner(part, path)
        setattr(owner, leaf, None)
        stem = leaf.removesuffix("_g")
        if stem != leaf and isinstance(vars(owner).get(stem), Tensor):
            setattr(owner, stem, None)  # what torch's weight norm makes of its two, anew before each use
    return weights


def put(part: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
    """Put back what was taken."""
    for path, value in weights.items():
        owner, leaf = _owner(part, path)
        setattr(owner, leaf, value)


@contextmanager
def standing(parts: Iterable[nn.Module], like: nn.Module) -> Iterator[None]:
    """Within it parts without weights say that they are where another is, and of its type: pipelines ask them that.

    like: the other.
    """
    empty = {id(part): part for part in parts}.values()
    for part in empty:
        part.register_parameter(_STAND, nn.Parameter(torch.empty(0, dtype=type_of(like), device=device_of(like))))
    try:
        yield
    finally:
        for part in empty:
            delattr(part, _STAND)


def _load(part: nn.Module, mark: _Away) -> nn.Module:
    kind = cast(_Class, type(part))
    try:
        return kind.from_pretrained(
            mark.folder, subfolder=mark.name, dtype=mark.dtype, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"the {mark.name} of this pipeline had left memory, and cannot be loaded again",
            where=str(mark.folder / mark.name),
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:600]}",
            fix="put the folder back as it was, or leave precompute_features out",
        ) from error


def _weights(part: nn.Module) -> dict[str, nn.Parameter]:
    return dict(part.named_parameters(remove_duplicate=False))


def _owner(part: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that a parameter is of, and its name there."""
    owner, _, leaf = path.rpartition(".")
    return part.get_submodule(owner), leaf
