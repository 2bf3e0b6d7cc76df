"""Sounds as a modality: tensors in memory for now, saved and shown as 16-bit WAV.

c channels, n samples.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

from einops import rearrange
from torch import Tensor

from modalign.content import Part
from modalign.data.fields import block_value
from modalign.errors import DataError
from modalign.roles import Modality
from modalign_audio.world import RATE


@final
class AudioModality(Modality):
    """Sounds, ``c n`` of floats from -1 to 1, one or two channels at the oracle world's 4 kHz.

    Only sounds in memory can be read yet; files and encoded bytes are refused in words.
    """

    name: ClassVar[str] = "audio"
    blocks: ClassVar[tuple[str, ...]] = ("audio",)
    columns: ClassVar[tuple[str, ...]] = ("audio", "audios")

    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        part = _part(block_value(block, "audio", "a sound"))
        _samples(part)
        return part

    def block(self, part: Part) -> Mapping[str, object]:
        _samples(part)
        return {"type": "audio", "audio": part.value}

    def save(self, part: Part, stem: Path) -> Path:
        file = stem.with_name(f"{stem.name}.wav")
        file.write_bytes(_wav(part))
        return file

    def show(self, part: Part) -> str:
        data = base64.b64encode(_wav(part)).decode()
        return f'<audio controls preload="metadata" src="data:audio/wav;base64,{data}"></audio>'


def _part(value: object) -> Part:
    if not isinstance(value, Tensor):
        raise DataError(
            "this version reads sounds in memory only, not files or encoded bytes",
            field="audio",
            got=type(value).__name__,
            fix=f"give a float tensor of shape (channels, samples) at {RATE} Hz with values from -1 to 1",
        )
    return Part(modality="audio", value=value)


def _samples(part: Part) -> Tensor:
    """The sound as ``n c``, within -1 and 1."""
    value = _part(part.value).value
    assert isinstance(value, Tensor)
    if value.ndim != 2 or value.shape[0] not in (1, 2) or not value.is_floating_point() or not value.numel():
        raise DataError(
            'a sound must be "c n" of floats with one or two channels',
            field="audio",
            got=f"{value.dtype} of shape {tuple(value.shape)}",
        )
    if not value.isfinite().all():
        raise DataError("a sound must hold finite numbers", field="audio", got="NaN or infinity")
    return rearrange(value.detach().cpu().float().clamp(-1, 1), "c n -> n c")


def _wav(part: Part) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, _samples(part).numpy(), RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()
