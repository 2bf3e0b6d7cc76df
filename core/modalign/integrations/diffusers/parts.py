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

_MARK: Final = "_modalign_away"  #: on a part, so that whoever shares it knows too
_STAND: Final = "_modalign_stand"


class _Class(Protocol):
    """A class of diffusers or of transformers."""

    from_pretrained: Callable[..., nn.Module]


@final
@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a pipeline was loaded from.

    path: a folder, or an id on the hub.
    revision: of an id.
    """

    path: str
    revision: str | None = None

    def folder(self) -> Path:
        """The folder on this machine; of an id that of the commit that was loaded, whatever the hub has by now."""
        place = Path(self.path).expanduser()
        if place.is_dir():
            return place.absolute()
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(self.path, revision=self.revision, local_files_only=True))


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


def release(part: nn.Module, name: str, source: Source) -> None:
    """Free the memory of a part's weights; its buffers and settings stay, which a network may ask it for.

    The weights are none, and not on `meta`: whatever moves, sends or counts a model's parameters does not meet them.

    name: in its pipeline.
    """
    weights = _weights(part)
    if away(part) or not weights:
        return
    mark = _Away(folder=source.folder(), name=name, dtype=type_of(part), weights=fingerprint(weights))
    for path in weights:
        owner, leaf = _owner(part, path)
        setattr(owner, leaf, None)
        stem = leaf.removesuffix("_g")
        if stem != leaf and isinstance(vars(owner).get(stem), Tensor):
            setattr(owner, stem, None)  # what torch's weight norm makes of its two, anew before each use
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
            fix="save the pipeline whole and train what was saved; where features are precomputed, leave that out",
        )
    moved: dict[int, nn.Parameter] = {}  # those that several modules share stay one
    for path, value in found.items():
        owner, leaf = _owner(part, path)
        if id(value) not in moved:
            moved[id(value)] = nn.Parameter(value.detach().to(device), requires_grad=False)
        setattr(owner, leaf, moved[id(value)])
    delattr(part, _MARK)


@contextmanager
def standing(parts: Iterable[nn.Module], like: nn.Module) -> Iterator[None]:
    """Within it parts without weights say that they are where another is, and of its type: pipelines ask them that.

    like: the other.
    """
    empty = {id(part): part for part in parts if away(part)}.values()
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
            fix="put the folder back as it was; where features are precomputed, leave that out",
        ) from error


def _weights(part: nn.Module) -> Mapping[str, nn.Parameter]:
    return dict(part.named_parameters(remove_duplicate=False))


def _owner(part: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that a parameter is of, and its name there."""
    owner, _, leaf = path.rpartition(".")
    return part.get_submodule(owner), leaf
