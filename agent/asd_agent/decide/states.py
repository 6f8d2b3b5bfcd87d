"""Operating states found in normal sound itself: off, idle, loaded, or several speeds. No labels.

Windows belong together that are linked by near neighbours: an idle compressor wanders through a whole range of sounds
as its pressure rises, but from one window to the next it does so in small steps. A step counts in relation to how
densely the windows lie at both of its ends, so that a tight state beside a wide one is a state of its own (Zelnik-Manor
and Perona, "Self-tuning spectral clustering", 2004). Sound is first smoothed over some 10 s: shorter windows scatter
more than states differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from asd_agent.decide.blocks import FEWEST_WINDOWS, Labels
from asd_agent.types import Floats

OFF = "off"
FEWEST = 24  # windows, below which no states are sought: gaps between few windows mean nothing
SMOOTH_S = 10.0
NEIGHBOUR = 4  # the distance to this neighbour tells how densely windows lie
STEP = 2.6  # longer steps, in units of that distance at both ends (geometric mean), separate states
LEVEL_SHARE = 0.5  # weight of the level in dB against the mean of all bands
MOST_WINDOWS = 2000  # that are compared with each other; of more, every second, third, ... one
OFF_DB = 10.0  # the quietest state is called off when it is so much quieter than the next


def discover(features: npt.ArrayLike, level_dbfs: npt.ArrayLike, session: npt.ArrayLike, hop_s: float) -> Labels:
    """features [n, dim] (dB of bands), level [n] and session [n] of windows in order of time, hop_s apart -> state of
    each window [n], 0.. by rising level. Every state has at least six windows."""
    x, level = np.asarray(features, float), np.asarray(level_dbfs, float)
    if len(x) < FEWEST:
        return np.zeros(len(x), np.intp)
    x = np.column_stack([x / np.sqrt(x.shape[1]), LEVEL_SHARE * level])
    x = x - x.mean(axis=0)
    x = _smooth(x, np.asarray(session), round(SMOOTH_S / hop_s) // 2)
    few = x[:: -(-len(x) // MOST_WINDOWS)]
    distance = _distances(few, few)
    density = np.maximum(np.partition(distance, NEIGHBOUR, axis=1)[:, NEIGHBOUR], 1e-9)
    groups = _linked(distance <= STEP * np.sqrt(density[:, None] * density))
    found, sizes = np.unique(groups, return_counts=True)
    members = np.isin(groups, found[sizes >= FEWEST_WINDOWS])
    if not members.any():
        return np.zeros(len(x), np.intp)
    parts = np.array_split(x, len(x) // 1000 + 1)
    labels = np.concatenate([groups[members][_distances(part, few[members]).argmin(axis=1)] for part in parts])
    large = np.unique(labels)
    order = large[np.argsort([np.median(level[labels == s]) for s in large])]
    return _rank(labels, order)


def names(level_dbfs: Sequence[float]) -> list[str]:
    """Median levels of the states, rising -> names to begin with: off, idle, loaded; a person may give better ones."""
    off = len(level_dbfs) > 1 and level_dbfs[1] - level_dbfs[0] >= OFF_DB
    rest = len(level_dbfs) - off
    running = {1: ["running"], 2: ["idle", "loaded"]}.get(rest, [f"state {i}" for i in range(1, rest + 1)])
    return [OFF, *running] if off else running


def _rank(labels: Labels, order: Labels) -> Labels:
    out = np.empty(len(labels), np.intp)
    for rank, name in enumerate(order):
        out[labels == name] = rank
    return out


def _smooth(x: Floats, session: npt.NDArray[np.intp], reach: int) -> Floats:
    """Median of each window and `reach` windows before and after it in its session."""
    if not reach:
        return x
    out = x.copy()
    for name in np.unique(session):
        rows = np.flatnonzero(session == name)
        for i, row in enumerate(rows):
            out[row] = np.median(x[rows[max(0, i - reach) : i + reach + 1]], axis=0)
    return out


def _distances(x: Floats, y: Floats) -> Floats:
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def _linked(near: npt.NDArray[np.bool_]) -> Labels:
    """Adjacency [n, n] -> connected component of each [n]."""
    labels = np.full(len(near), -1, np.intp)
    for first in range(len(near)):
        if labels[first] >= 0:
            continue
        labels[first] = first
        queue = [first]
        while queue:
            reached = np.flatnonzero(near[queue.pop()] & (labels < 0))
            labels[reached] = first
            queue += reached.tolist()
    return labels
