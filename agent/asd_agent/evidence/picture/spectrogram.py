"""Power over time and a logarithmic frequency axis, as a picture wants it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asd_agent.types import Floats, Samples

LOWEST_HZ = 50.0
FRAME_S = 0.064
OVERLAP = 2


@dataclass(frozen=True)
class Scale:
    """A logarithmic frequency axis of so many rows, the highest frequency on top."""

    low_hz: float
    high_hz: float
    rows: int

    def row(self, hz: float) -> float:
        share = np.log(max(hz, 1e-3) / self.low_hz) / np.log(self.high_hz / self.low_hz)
        return float(self.rows * (1 - np.clip(share, 0, 1)))

    @property
    def edges_hz(self) -> Floats:
        """[rows + 1], falling."""
        return np.asarray(np.geomspace(self.high_hz, self.low_hz, self.rows + 1), np.float64)


def spectrogram(samples: Samples, rate_hz: int, columns: int, scale: Scale) -> Floats:
    """samples [n] -> dB relative to a full-scale sine [rows, columns]. A pixel shows the mean of all frames in it, and
    the mean of all bins, or what lies between two bins where they are farther apart than pixels."""
    size = 2 ** round(np.log2(FRAME_S * rate_hz))
    padded = np.concatenate([samples, np.zeros(max(0, size - len(samples)), np.float32)])
    starts = np.arange(0, len(padded) - size + 1, size // OVERLAP)
    window = np.hanning(size).astype(np.float32)
    power = np.empty((size // 2 + 1, len(starts)), np.float32)
    for i, start in enumerate(starts):
        power[:, i] = np.square(np.abs(np.fft.rfft(padded[start : start + size] * window)))
    power *= 4 / np.sum(window, dtype=np.float64) ** 2
    frames = _spread(power, np.linspace(0, len(starts), columns + 1), axis=1)
    bins = scale.edges_hz[::-1] * size / rate_hz + 0.5  # a bin is half a step wide on both sides
    rows = _spread(frames, np.clip(bins, 0, size // 2 + 1), axis=0)[::-1]
    return np.asarray(10 * np.log10(np.maximum(rows, 1e-20)))


def _spread(values: Floats | Samples, edges: Floats, axis: int) -> Floats:
    """Means of what lies between the edges (in steps of the axis, rising), values being constant within a step."""
    moved = np.moveaxis(np.asarray(values, np.float64), axis, 0)
    total = np.concatenate([np.zeros((1, *moved.shape[1:])), np.cumsum(moved, axis=0)])
    whole = np.minimum(edges.astype(int), len(moved) - 1)
    part = edges - whole
    at = total[whole] + moved[whole] * part.reshape(-1, *[1] * (moved.ndim - 1))
    width = np.maximum(np.diff(edges), 1e-9).reshape(-1, *[1] * (moved.ndim - 1))
    return np.asarray(np.moveaxis(np.diff(at, axis=0) / width, 0, axis), np.float64)
