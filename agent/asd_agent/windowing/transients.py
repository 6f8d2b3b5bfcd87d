"""The most transient of a window: a knock, a bark, a door; and where in the window it is."""

from __future__ import annotations

import functools
import itertools

import numpy as np

from asd_agent.types import Samples, Transient

FRAME_S = 0.016
LOWEST_HZ = 125.0
BINS = 6  # of an octave are enough: a sudden sound is broad, and a tone that begins lifts one octave of many
FLOOR = 1e-8  # relative to the power of the window: -80 dB


def strongest_transient(samples: Samples, rate_hz: int) -> Transient:
    """samples [n], at least a few frames. Octaves of power in frames of 16 ms, in dB above their median over the
    window; their mean is the excess. Does not depend on gain."""
    size = round(FRAME_S * rate_hz)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    waves, octaves = _tables(size, rate_hz)
    parts = frames @ waves
    power = np.square(parts, out=parts) @ octaves
    level = 10 * np.log10(power + max(FLOOR * float(power.mean()), 1e-30))
    middle = len(level) // 2
    usual = np.partition(level, middle, axis=0)[middle]  # the median, for a third of its price
    excess = level.mean(axis=1) - usual.mean()
    peak = int(excess.argmax())
    return Transient((peak + 0.5) * size / rate_hz, float(excess[peak]))


@functools.lru_cache(maxsize=8)
def _tables(size: int, rate_hz: int) -> tuple[Samples, Samples]:
    """Tapered cosines and sines of the bins [size, waves], and the mean over those of an octave [waves, octaves].

    A product with the few that are looked at costs a third of the whole transform.
    """
    count = int(np.log2(rate_hz / 2 / LOWEST_HZ) + 1e-9)
    edges = np.round(LOWEST_HZ * 2.0 ** np.arange(count + 1) * FRAME_S).astype(int)
    bins = [
        np.unique(np.linspace(low, high, BINS, endpoint=False).astype(int)) for low, high in itertools.pairwise(edges)
    ]
    angle = 2 * np.pi * np.outer(np.arange(size), np.concatenate(bins)) / size
    waves = np.hanning(size)[:, None] * np.hstack([np.cos(angle), np.sin(angle)])
    member = np.repeat(np.eye(count) / [len(b) for b in bins], [len(b) for b in bins], axis=0)
    return waves.astype(np.float32), np.vstack([member, member]).astype(np.float32)
