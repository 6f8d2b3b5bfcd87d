"""What a second microphone that hears the room says of the sound at the machine.

Per window and frequency, near C and far F (Hann STFT; DCASE 2026 Task 2 has 1024 samples every 512):

    H = sum_t C conj(F) / sum_t |F|^2        the path from far to near, as far as it is linear and shorter than a frame
    Y = C - H F

Y is the near sound without what is coherent with the far one, back as a waveform; `coherence` is how much that is. What
both microphones hear of the machine itself goes too. So Y never judges a window alone: it is asked where the room is
louder than in calibration. That shows in the level of the far sound over the near one: sound of the room raises it,
and no sound of the machine does, because the near microphone hears that better.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent.types import Floats, RoomSound, Samples, Window
from asd_agent.windowing.resampler import finite
from asd_agent.windowing.signal_chain import CENTRES_HZ, USABLE

FRAME = 1024
ROOM_FRAME_S = 0.5  # in a room the path from far to near is long, and ends long before this
FEWEST_FRAMES = 16  # of a window: with fewer, what is not coherent goes as well
TOO_COHERENT, TOO_CLOSE_DB = 0.5, -6.0  # far explains so much of near, at such a level over near: it hears the machine
LOUDER_DB = 2.0  # the room is louder when three third octaves are so much above their highest in calibration
LOUDER_BANDS = 3
HIGHEST = 0.98  # of the calibration's windows lie below
_SMALLEST = 1e-12


class Subtraction(NamedTuple):
    samples: Samples  # [n] near without what far explains
    coherence: float  # share of the energy of the near sound that the far one explains, 0 to 1
    near_power: Floats  # [frame / 2 + 1], mean over time
    far_power: Floats


def subtract(near: npt.ArrayLike, far: npt.ArrayLike, frame: int = FRAME) -> Subtraction:
    """near, far [n]: of one clock, at one rate. `frame`: an even number of samples. Raises ValueError for different
    lengths."""
    close, distant = (np.asarray(x, np.float64) for x in (near, far))
    if close.shape != distant.shape or close.ndim != 1:
        raise ValueError(f"near and far must be one channel of equal length, not {close.shape} and {distant.shape}")
    c, f = _stft(close, frame), _stft(distant, frame)
    near_power, far_power = _power(c), _power(f)
    explained = (c * f.conj()).mean(axis=0) / (far_power + _SMALLEST / len(f)) * f
    total = float(near_power.sum())
    coherence = float(_power(explained).sum()) / total if total > 0 else 0.0
    left = (close - _istft(explained, len(close), frame)).astype(np.float32)
    return Subtraction(left, min(coherence, 1.0), near_power, far_power)


class Room(NamedTuple):
    """A window as both microphones hear it."""

    sound: RoomSound
    subtracted: Mapping[int, Samples]  # rate -> near without what far explains, [n]


def hear_room(window: Window, rates: Iterable[int], silence_dbfs: float) -> Room | None:
    """At these rates. None without a reference microphone, and where it is silent or delivers what is no sound."""
    if not window.reference:
        return None
    highest = max(rates)
    power = float(np.var(finite(window.reference[highest]), dtype=np.float64))
    if 10 * math.log10(max(power, 1e-30)) < silence_dbfs:
        return None
    found = {
        rate: subtract(
            finite(window.resampled[rate]), finite(window.reference[rate]), frame_of(rate, len(window.resampled[rate]))
        )
        for rate in rates
    }
    top = found[highest]
    return Room(room_sound(top, highest), {rate: one.samples for rate, one in found.items()})


def room_sound(found: Subtraction, rate_hz: int) -> RoomSound:
    sums = _third_octaves(rate_hz, len(found.near_power))
    near, far = sums @ found.near_power, sums @ found.far_power
    level = 10 * np.log10(np.maximum(far, 1e-30) / np.maximum(near, 1e-30))
    return RoomSound(round(found.coherence, 4), tuple(round(float(v), 2) for v in level))


def hears_machine(heard: Sequence[RoomSound]) -> float | None:
    """The share of the sound at the machine that the reference explains, where that is too much; else None. A quiet
    room is coherent too: then the reference is much quieter than the machine's microphone."""
    if not heard:
        return None
    coherence = float(np.median([sound.coherence for sound in heard]))
    over_near_db = float(np.median([np.median(sound.over_near_db) for sound in heard]))
    return coherence if coherence >= TOO_COHERENT and over_near_db >= TOO_CLOSE_DB else None


def frame_of(rate_hz: int, samples: int) -> int:
    """A power of two: as long as the room asks for, in windows that hold enough of them."""
    return 1 << max(int(math.log2(min(ROOM_FRAME_S * rate_hz, max(samples, 1) / FEWEST_FRAMES))), 6)


class RoomNormal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the reference microphone heard in calibration, in one operating state."""

    windows: int
    coherence: float  # median
    highest_db: list[float]  # of `RoomSound.over_near_db`

    @classmethod
    def fit(cls, heard: Sequence[RoomSound]) -> Self:
        return cls(
            windows=len(heard),
            coherence=round(float(np.median([sound.coherence for sound in heard])), 4),
            highest_db=np.quantile([sound.over_near_db for sound in heard], HIGHEST, axis=0).round(2).tolist(),
        )

    def louder_db(self, heard: RoomSound) -> float:
        """By how much the room is louder than in calibration; 0 where it is not."""
        count = min(len(self.highest_db), len(heard.over_near_db))
        rise = np.array(heard.over_near_db[:count]) - np.array(self.highest_db[:count])
        found = float(np.sort(rise)[-min(LOUDER_BANDS, count)]) if count else 0.0
        return found if found >= LOUDER_DB else 0.0


@functools.lru_cache(maxsize=8)
def _third_octaves(rate_hz: int, bins: int) -> Floats:
    """[bands, bins]; every band has a bin."""
    centres = np.array([c for c in CENTRES_HZ if c * 2 ** (1 / 6) <= USABLE * rate_hz])
    at = np.linspace(0, rate_hz / 2, bins)
    inside = (at >= centres[:, None] * 2 ** (-1 / 6)) & (at < centres[:, None] * 2 ** (1 / 6))
    inside[np.arange(len(centres)), np.abs(at - centres[:, None]).argmin(axis=1)] = True
    return inside.astype(np.float64)


def _power(spectra: npt.NDArray[np.complex128]) -> Floats:
    return np.asarray((spectra.real**2 + spectra.imag**2).mean(axis=0))


@functools.lru_cache(maxsize=8)
def _hann(frame: int) -> Floats:
    """Half a frame apart, they add up to 1."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame))


def _stft(x: Floats, frame: int) -> npt.NDArray[np.complex128]:
    """[n] -> [frames, frame / 2 + 1]; the edges are padded with zeros."""
    hop = frame // 2
    padded = np.pad(x, (hop, frame + (-len(x)) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    return np.fft.rfft(frames * _hann(frame), axis=1)


def _istft(spectra: npt.NDArray[np.complex128], n: int, frame: int) -> Floats:
    hop = frame // 2
    frames = np.fft.irfft(spectra, frame, axis=1)
    out = np.zeros((len(frames) + 1) * hop)
    for start in (0, hop):
        part = frames[:, start : start + hop].reshape(-1)
        out[start : start + len(part)] += part
    return out[hop : hop + n]
