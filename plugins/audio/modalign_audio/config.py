"""How sounds are decoded, and the most that is decoded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from modalign.config import Config
from modalign.roles import MediaSettings

Format = Literal["WAV", "WAVEX", "FLAC", "OGG", "MP3", "AIFF"]

FORMATS: tuple[Format, ...] = ("WAV", "WAVEX", "FLAC", "OGG", "MP3", "AIFF")
LEAST_RATE, MOST_RATE = 1000, 384_000  #: hertz; a header that says less or more is broken or forged
MOST_CHANNELS = 64  #: of any sound that is read
MOST_BYTES = 4 << 30  #: of any file that is read, whatever the settings say


class AudioSettings(MediaSettings):
    """How sounds are decoded, and the most that is decoded.

    Mono is the mean of all channels. Stereo of one channel is that channel twice, of two channels the two as they are,
    and of more it is refused: which of them lie left and right is not known.
    """

    channels: Literal["mono", "stereo"] = "mono"
    """How many channels come out: the mean of all, or left and right."""

    rate: int | None = Field(default=None, ge=LEAST_RATE, le=MOST_RATE)
    """Samples per second to come out where the model takes any; by default the sound's own. A model's rate wins."""

    max_bytes: PositiveInt = Field(default=256 << 20, le=MOST_BYTES)
    """Longest file or encoded bytes, in bytes."""

    max_seconds: PositiveFloat = 600.0
    """Longest sound, or part of one, in seconds."""

    max_channels: int = Field(default=8, ge=1, le=MOST_CHANNELS)
    """Most channels of a file, before they are mixed."""

    max_decoded_bytes: PositiveInt = 256 << 20
    """Most memory of a decoded sound, in bytes: 4 per sample and channel that comes out."""

    formats: tuple[Format, ...] = FORMATS
    """Kinds of file that are decoded, as libsndfile names them; OGG holds Vorbis and Opus."""


class AudioEncoderOptions(Config):
    """What an audio encoder can be told beside its checkpoint."""

    pool: PositiveInt = 1
    """Average so many frames to one embedding; the last one averages what is left."""

    layer: int | None = None
    """Take the states of this layer, 0 those before the first, negative from the end; by default the tower's output."""

    features: Literal["fused", "extractor"] = "fused"
    """Who makes a Whisper tower's input where both give the same: our `log_mel`, or the checkpoint's extractor."""
