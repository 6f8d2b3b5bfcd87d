"""What a second microphone that hears the room explains of the sound at the machine, taken out.

Per window and frequency, near C and far F (Hann STFT, 1024 samples every 512, DCASE 2026 Task 2):

    H = sum_t C conj(F) / sum_t |F|^2        the path from far to near, as far as it is linear and shorter than a frame
    Y = C - H F

Y is the near sound without what is coherent with the far one, back as a waveform. What both microphones hear of the
machine itself goes too, so the near sound is judged as well; `coherence` says how much of it the far one hears.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from asd_agent.types import Floats, Samples

FRAME, HOP = 1024, 512
TOO_COHERENT = 0.5  # share of the near sound's energy: the far microphone hears the machine, not the room
_WINDOW = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)  # half a frame apart, they add up to 1
_SMALLEST = 1e-12


class Subtraction(NamedTuple):
    samples: Samples  # [n] near without what far explains
    coherence: float  # share of the energy of the near sound that the far one explains, 0 to 1


def subtract(near: npt.ArrayLike, far: npt.ArrayLike) -> Subtraction:
    """near, far [n]: of one clock, at one rate. Raises ValueError for different lengths."""
    close, distant = (np.asarray(x, np.float64) for x in (near, far))
    if close.shape != distant.shape or close.ndim != 1:
        raise ValueError(f"near and far must be one channel of equal length, not {close.shape} and {distant.shape}")
    c, f = _stft(close), _stft(distant)
    cross, power = (c * f.conj()).sum(axis=0), (np.abs(f) ** 2).sum(axis=0)
    explained = cross / (power + _SMALLEST) * f
    total = float((np.abs(c) ** 2).sum())
    coherence = float((np.abs(explained) ** 2).sum()) / total if total > 0 else 0.0
    return Subtraction((close - _istft(explained, len(close))).astype(np.float32), min(coherence, 1.0))


def _stft(x: Floats) -> npt.NDArray[np.complex128]:
    """[n] -> [frames, FRAME / 2 + 1]; the edges are padded with zeros."""
    padded = np.pad(x, (HOP, FRAME + (-len(x)) % HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    return np.fft.rfft(frames * _WINDOW, axis=1)


def _istft(spectra: npt.NDArray[np.complex128], n: int) -> Floats:
    frames = np.fft.irfft(spectra, FRAME, axis=1)
    out = np.zeros((len(frames) + 1) * HOP)
    for start in (0, HOP):
        part = frames[:, start : start + HOP].reshape(-1)
        out[start : start + len(part)] += part
    return out[HOP : HOP + n]
