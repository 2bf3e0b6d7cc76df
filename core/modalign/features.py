"""Encodings of frozen encoders on disk, by the encoder's weights and the medium's digest; safe with many processes."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, final
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from modalign.fingerprint import fingerprint

if TYPE_CHECKING:
    from modalign.roles import Encoder

_LOG = logging.getLogger("modalign")
_NAME = "encoding"


@final
class FeatureCache:
    """One file per encoder and medium, written whole under another name and then renamed.

    Two processes that encode the same medium at once write the same bytes; a reader finds a whole file or none. A file
    that cannot be read is encoded again and replaced, with a word in the log.

    folder: made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._keys: WeakKeyDictionary[Encoder, str] = WeakKeyDictionary()

    def get(self, encoder: Encoder, digest: str) -> Tensor | None:
        """What was stored, on the CPU; None where there is nothing."""
        place = self._place(encoder, digest)
        try:
            return load_file(place)[_NAME]
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, OSError) as error:
            _LOG.warning("the cached encoding %s cannot be read (%s); it is made again", place, error)
            return None

    def put(self, encoder: Encoder, digest: str, encoding: Tensor) -> None:
        """Store an encoding; what is there already is replaced by the same."""
        place = self._place(encoder, digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            save_file({_NAME: encoding.detach().cpu().contiguous()}, fresh)
            fresh.replace(place)
        finally:
            fresh.unlink(missing_ok=True)

    def _place(self, encoder: Encoder, digest: str) -> Path:
        kind = next(encoder.parameters()).device.type
        precision = str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "whole"
        return self.folder / f"{self._key(encoder)}-{precision}" / digest[:2] / f"{digest}.safetensors"

    def _key(self, encoder: Encoder) -> str:
        """What tells encoders apart: class, settings and weights, which are the same for a whole run."""
        if encoder not in self._keys:
            sha = hashlib.sha256(f"{type(encoder).__qualname__}\0{sorted(encoder.facts.items())}\0".encode())
            sha.update(fingerprint(encoder.state_dict()).encode())
            self._keys[encoder] = sha.hexdigest()[:32]
        return self._keys[encoder]
