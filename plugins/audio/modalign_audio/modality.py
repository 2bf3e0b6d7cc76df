"""Sounds as a modality: samples in memory, encoded bytes, and files inside the data root."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

from einops import rearrange
from torch import Tensor

from modalign.content import Part
from modalign.roles import Content, MediaSettings, Modality
from modalign_audio.codec import check_header
from modalign_audio.config import AudioSettings
from modalign_audio.opening import encoded
from modalign_audio.reading import decode, read_part, samples, write_block

#: What browsers play as it is, by libsndfile's name; the rest is shown as WAV.
_PLAYED = {"WAV": "audio/wav", "WAVEX": "audio/wav", "FLAC": "audio/flac", "OGG": "audio/ogg", "MP3": "audio/mpeg"}


@final
class AudioModality(Modality):
    """Sounds; what a block of one says is in `modalign_audio.reading`.

    Saved as 16-bit WAV at their own rate and with their own channels; values beyond -1 and 1 are clipped.

    >>> import torch
    >>> tone = AudioModality().read({"type": "audio", "audio": torch.zeros(8000), "sampling_rate": 8000}, root=None)
    >>> AudioModality().decode(tone, AudioSettings(), rate=16000).tensor.shape
    torch.Size([1, 16000])
    """

    name: ClassVar[str] = "audio"
    blocks: ClassVar[tuple[str, ...]] = ("audio",)
    columns: ClassVar[tuple[str, ...]] = ("audio", "audios")
    settings: ClassVar[type[MediaSettings]] = AudioSettings
    timed: ClassVar[bool] = True

    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        return read_part(block, root)

    def block(self, part: Part) -> Mapping[str, object]:
        return write_block(part)

    def save(self, part: Part, stem: Path) -> Path:
        file = stem.with_name(f"{stem.name}.wav")
        file.write_bytes(_wav(part))
        return file

    def show(self, part: Part) -> str:
        media = None
        if not isinstance(part.value, Tensor) and not {"start", "end"} & set(part.facts):
            media = _PLAYED.get(check_header(part, AudioSettings()))
        data = _wav(part) if media is None else encoded(part, AudioSettings())
        source = f"data:{media or 'audio/wav'};base64,{base64.b64encode(data).decode()}"
        return f'<audio controls preload="metadata" src="{source}"></audio>'

    def decode(self, part: Part, settings: MediaSettings, *, rate: float | None = None) -> Content:
        return decode(part, settings, rate)


def _wav(part: Part) -> bytes:
    import soundfile

    heard, rate = samples(part, AudioSettings())
    file = io.BytesIO()
    clipped = rearrange(heard.clamp(-1, 1), "c n -> n c")
    soundfile.write(file, clipped.numpy(), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
