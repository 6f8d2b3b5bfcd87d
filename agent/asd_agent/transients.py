"""The most sudden moment of a window: a knock, a bark, a door; and where in the window it is."""

from __future__ import annotations

import numpy as np

from asd_agent.types import Samples, Transient

FRAME_S = 0.016
LOWEST_HZ = 125.0
FLOOR = 1e-8  # relative to the power of the window: -80 dB


def most_sudden(samples: Samples, rate_hz: int) -> Transient:
    """samples [n], at least a few frames. Octaves of power in frames of 16 ms, in dB above their median over the
    window; their mean is the excess. Does not depend on gain."""
    size = round(FRAME_S * rate_hz)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    power = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)) ** 2
    edges = LOWEST_HZ * 2.0 ** np.arange(np.log2(rate_hz / 2 / LOWEST_HZ) + 1)
    first = np.minimum(np.round(edges * FRAME_S).astype(int), power.shape[1] - 1)
    octaves = np.add.reduceat(power, first, axis=1)[:, : len(first) - 1]
    level = 10 * np.log10(octaves + FLOOR * max(float(power.mean()), 1e-30))
    excess = (level - np.median(level, axis=0)).mean(axis=1)
    peak = int(excess.argmax())
    return Transient((peak + 0.5) * size / rate_hz, float(excess[peak]))
