"""The oracle world in tones: one to three beeps, low or high, in the first or the second half of one second.

A beep is one tone, or two of which one follows the other: rising or falling. Given the concept the layout is fixed;
only the start, by up to 19 ms, and the phase, by a little, are free.

c channels, n samples, t frames, f frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import ClassVar, cast, final

import torch
from einops import rearrange
from torch import Tensor

from modalign.content import Part
from modalign.roles import Depiction
from modalign.world.concept import VALUES, Concept
from modalign.world.packed import unpack
from modalign.world.painter import LESSON

RATE = 4000  #: samples per second
SAMPLES = 4000
#: Hertz; the first is that of a beep of one tone. All fit a whole number of times into a frame.
FREQUENCIES = {"low": (320.0, 480.0), "high": (640.0, 960.0)}
AMPLITUDE = 0.5

_FRAME = 50  #: samples: 12.5 ms
_BEEP, _GAP, _FADE = 320, 230, 20  #: samples
_STARTS = {"early": 160, "late": 2160}
#: samples between the places a beep may start at: whole turns of every frequency, so that a tone has the same phase
#: wherever it is. A model that makes sounds would else have to learn a circle of them first.
_STEP, _PLACES = 25, 4
_PHASE = 0.3  #: radians, either way
_FLOOR = 0.2  #: least amplitude of a beep
_PURITY = 0.7  #: least share of a beep's energy at its frequencies
_FREE = ("count", "pitch", "time")  #: chosen by the seed where a concept does not say; without an order: one tone
_ONE_TONE, _TWO_TONES = 0.2, (0.3, 0.7)  #: most share of the upper tone in a beep of one; its share in a beep of two
_APART = 1.5  #: least frames between the middles of two tones; they lie 3.2 apart
_SHORTEST, _LONGEST = 4, 12  #: frames of a beep


@final
class AudioDepiction(Depiction):
    """Beeps, ``1 4000`` of float32: one second at 4 kHz.

    What a concept leaves open is chosen by the seed. Reads exactly what it depicts, after 16-bit rounding, and with
    Gaussian noise of standard deviation 0.1 added (a beep's amplitude is 0.5); silence, noise, and beeps of both
    pitches, in both halves or of different orders, and two tones at once, are unreadable.

    >>> tone = AudioDepiction()
    >>> concept = Concept(count=2, pitch="high", time="late")
    >>> tone.read(tone.depict(concept)) == concept
    True
    """

    modality: ClassVar[str] = "audio"
    attributes: ClassVar[frozenset[str]] = frozenset({*_FREE, "order"})
    lesson: ClassVar[Mapping[str, object]] = MappingProxyType(
        {**LESSON, "sft_steps": 1100, "dpo_steps": 200, "learning_rate": 2e-4}
    )

    def depict(self, concept: Concept, *, seed: int = 0) -> Part:
        random = Random(f"audio/{seed}")
        free = {name: random.choice(VALUES[name]) for name in _FREE}
        whole = Concept.of({**free, **concept.only(self.attributes).said})
        start = _STARTS[cast(str, whole.time)] + _STEP * random.randrange(_PLACES)
        lower, upper = FREQUENCIES[cast(str, whole.pitch)]
        tones = {None: (lower, lower), "rising": (lower, upper), "falling": (upper, lower)}[whole.order]
        beep = _beep(*tones, random.uniform(-_PHASE, _PHASE))
        sound = torch.zeros(SAMPLES)
        for number in range(cast(int, whole.count)):
            at = start + number * (_BEEP + _GAP)
            sound[at : at + _BEEP] = beep
        return Part(modality=self.modality, value=sound[None])

    def student(self, folder: Path, *, seed: int = 0) -> Path:
        from modalign.integrations.painter import save_painter
        from modalign_audio.painter import AudioCanvas

        return save_painter(folder, self, AudioCanvas(), seed=seed)

    def taught(self, folder: Path) -> Path:
        return unpack(Path(__file__).parent / "taught", folder)

    def read(self, part: Part) -> Concept | None:
        sound = part.value
        if not isinstance(sound, Tensor) or sound.shape != (1, SAMPLES) or not sound.is_floating_point():
            return None
        if not sound.isfinite().all():
            return None
        frames = rearrange(sound.detach().double().cpu(), "1 (t n) -> t n", n=_FRAME)
        amplitudes = _amplitudes(frames)  # t f
        loudness = _smooth(amplitudes.square().sum(-1).sqrt())  # t
        loudest = loudness.topk(6).values.mean().item()
        if loudest < _FLOOR:
            return None
        beeps = _runs(loudness > 0.5 * loudest)
        if not 1 <= len(beeps) <= 3 or any(not _SHORTEST <= stop - start <= _LONGEST for start, stop in beeps):
            return None
        read = {_read_beep(frames[start:stop], amplitudes[start:stop], start) for start, stop in beeps}
        only = read.pop()
        if read or only is None:
            return None
        pitch, time, order = only
        return Concept(count=len(beeps), pitch=pitch, time=time, order=order)


def _beep(first: float, second: float, phase: float) -> Tensor:
    """One tone and then another, ``n``, without a jump between them."""
    at = torch.arange(_BEEP) / RATE
    angle = 2 * math.pi * first * at + phase
    if second != first:
        angle[_BEEP // 2 :] += 2 * math.pi * (second - first) * (at - at[_BEEP // 2])[_BEEP // 2 :]
    ramp = (torch.arange(_BEEP) + 0.5) / _FADE
    fade = torch.minimum(ramp, ramp.flip(0)).clamp(max=1)  # without it the beep's ends are clicks at all frequencies
    return (AMPLITUDE * fade * torch.sin(angle)).float()


def _amplitudes(frames: Tensor) -> Tensor:
    """Amplitude at each frequency, ``t f``, whatever the phase."""
    at = torch.arange(_FRAME, dtype=torch.float64) / RATE
    hertz = torch.tensor(list(FREQUENCIES.values()), dtype=torch.float64).flatten()
    turns = 2 * math.pi * hertz[:, None] * at  # f n
    real, imaginary = (torch.einsum("tn,fn->tf", frames, wave) for wave in (turns.cos(), turns.sin()))
    return 2 / _FRAME * torch.hypot(real, imaginary)


def _smooth(values: Tensor) -> Tensor:
    """The median of each value and its neighbours, ``t``: drops what is heard in one frame only."""
    padded = torch.cat([values[:1], values, values[-1:]])
    return padded.unfold(0, 3, 1).median(-1).values


def _runs(on: Tensor) -> list[tuple[int, int]]:
    """Where consecutive frames are on, as half-open ranges."""
    edges = torch.diff(torch.cat([torch.zeros(1), on.float(), torch.zeros(1)]))
    starts, stops = (torch.nonzero(edges == sign).flatten().tolist() for sign in (1, -1))
    return list(zip(starts, stops, strict=True))


def _read_beep(frames: Tensor, amplitudes: Tensor, start: int) -> tuple[str, str, str | None] | None:
    """Pitch, time and order of one beep; None where it is no beep of ours, or lies across the middle."""
    energy = frames.square().sum(-1).sum() * 2 / _FRAME
    tones = rearrange(amplitudes.square(), "t (pitch tone) -> pitch tone t", tone=2)  # of pure tones, all of the energy
    number = int(tones.sum((1, 2)).argmax())
    if tones[number].sum() < _PURITY * energy:
        return None
    middle = SAMPLES // _FRAME // 2
    if start < middle < start + len(frames):
        return None
    lower, upper = tones[number]  # t
    share = (upper.sum() / (lower + upper).sum()).item()
    order = None
    if share > _ONE_TONE:
        apart = (_middle(upper) - _middle(lower)).item()
        if not _TWO_TONES[0] <= share <= _TWO_TONES[1] or abs(apart) < _APART:
            return None  # the upper tone alone, or both at once
        order = "rising" if apart > 0 else "falling"
    return tuple(FREQUENCIES)[number], "early" if start < middle else "late", order


def _middle(energy: Tensor) -> Tensor:
    """The frame in whose middle a tone ``t`` lies."""
    return (energy * torch.arange(len(energy))).sum() / energy.sum()
