"""Encodings of frozen modules on disk, by the module's weights and the medium's digest; safe with many processes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, cast, final
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from modalign.caching.fingerprint import fingerprint
from modalign.caching.structure import Json, apart, together
from modalign.frozen import empty

_LOG = logging.getLogger("modalign")
_NAME: Final = "encoding"
_STRUCTURE: Final = "structure"


@final
class FeatureCache:
    """One file per frozen module and medium, written whole under another name and then renamed.

    Two processes that encode the same medium at once write the same bytes; a reader finds a whole file or none. A file
    that cannot be read is encoded again and replaced, with a word in the log.

    folder: made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._prints: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()

    def get(self, module: nn.Module, digest: str, facts: Mapping[str, object] = empty()) -> object:
        """What was stored, tensors where the module is; None where there is nothing.

        facts: the module's settings beside its weights, by name: what it gives depends on them.
        """
        place = self._place(module, digest, facts)
        try:
            with safe_open(place, framework="pt") as file:
                said = (file.metadata() or {}).get(_STRUCTURE)
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if said is None:
                return tensors[_NAME].to(_device(module))  # as it was written before encodings had structure
            rest, beside = json.loads(said)
            placed = {name: one.to(_device(module)) if name in beside else one for name, one in tensors.items()}
            return together(cast(Json, rest), placed)
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            _LOG.warning("the cached encoding %s cannot be read (%s); it is made again", place, error)
            with suppress(OSError):
                place.unlink()
            return None

    def learn(self, module: nn.Module) -> None:
        """Take a module's fingerprint while its weights are there: it is known by it when they have left memory."""
        if module not in self._prints:
            self._prints[module] = fingerprint(module.state_dict())

    def mark(self, module: nn.Module) -> str:
        """A module's fingerprint: what it is known by here."""
        self.learn(module)
        return self._prints[module]

    def knows(self, module: nn.Module) -> bool:
        """Whether a module's fingerprint was taken."""
        return module in self._prints

    def has(self, module: nn.Module, digest: str, facts: Mapping[str, object] = empty()) -> bool:
        """Whether there is a file, which may yet turn out to be damaged."""
        return self._place(module, digest, facts).is_file()

    def put(
        self,
        module: nn.Module,
        digest: str,
        encoding: object,
        facts: Mapping[str, object] = empty(),
        *,
        without: Collection[str] = (),
    ) -> None:
        """Store an encoding; what is there already is replaced by the same. A `TypeError` where it has no such form.

        without: names of tensors that nobody reads; see `modalign.caching.structure.apart`.
        """
        tensors, rest = apart(encoding, _NAME, without)
        beside = [name for name, one in tensors.items() if one.device == _device(module)]
        place = self._place(module, digest, facts)
        place.parent.mkdir(parents=True, exist_ok=True)
        # a number of a process is not enough: containers that share the folder count theirs alike
        fresh = place.with_name(f".{place.name}.{os.getpid()}.{uuid.uuid4().hex}")
        still = {name: one.detach().cpu().clone().contiguous() for name, one in tensors.items()}
        try:
            save_file(still, fresh, metadata={_STRUCTURE: json.dumps([rest, beside])})
            fresh.replace(place)
        finally:
            fresh.unlink(missing_ok=True)

    def _place(self, module: nn.Module, digest: str, facts: Mapping[str, object]) -> Path:
        kind = _device(module).type
        precision = str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "whole"
        return self.folder / f"{self._key(module, facts)}-{precision}" / digest[:2] / f"{digest}.safetensors"

    def _key(self, module: nn.Module, facts: Mapping[str, object]) -> str:
        """What tells modules apart: class, settings and weights, which are the same for a whole run."""
        sha = hashlib.sha256(f"{type(module).__qualname__}\0{sorted(facts.items())}\0".encode())
        sha.update(self.mark(module).encode())
        return sha.hexdigest()[:32]


def _device(module: nn.Module) -> torch.device:
    found = next(module.parameters(), None)
    # of one whose weights have left memory
    return torch.device("cpu") if found is None or found.device.type == "meta" else found.device
