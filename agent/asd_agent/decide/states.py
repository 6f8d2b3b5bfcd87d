"""Operating states found in normal sound itself: off, idle, loaded, or several speeds. No labels.

Windows belong together that are linked by near neighbours: an idle compressor wanders through a whole range of sounds
as its pressure rises, but from one window to the next it does so in small steps. A step counts in relation to how
densely the windows lie at both of its ends, so that a tight state beside a wide one is a state of its own (Zelnik-Manor
and Perona, "Self-tuning spectral clustering", 2004). Sound is first smoothed over some 10 s: shorter windows scatter
more than states differ. A machine that is off is one state, whatever sounds in its place.

A state that lasted for less than half a minute in all may be missed: its windows go to the one most like it.
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
NEIGHBOUR_S, FEWEST_NEIGHBOURS = 8.0, 3  # the distance to so many seconds of sound tells how densely windows lie
STEP = 2.05  # longer steps, in units of that distance at both ends (geometric mean), separate states
QUIET_DB = 8.0  # a gap between the levels of all windows that no state of a running machine has
LEVEL_SHARE = 0.5  # weight of the level in dB against the mean of all bands
MOST_WINDOWS = 2000  # that are compared with each other; of more, every second, third, ... one
OFF_GROUP = -1
OFF_DB = 10.0  # the quietest state is called off when it is so much quieter than the next


def discover(
    features: npt.ArrayLike, level_dbfs: npt.ArrayLike, session: npt.ArrayLike, hop_s: float, overlap: int = 1
) -> Labels:
    """features [n, dim] (dB of bands), level [n] and session [n] of windows in order of time, hop_s apart, of which
    `overlap` in a row share a moment of sound -> state of each window [n], 0.. by rising level. Every state has at
    least six windows."""
    x, level, occasion = np.asarray(features, float), np.asarray(level_dbfs, float), np.asarray(session)
    if len(x) < FEWEST:
        return np.zeros(len(x), np.intp)
    x = np.column_stack([x / np.sqrt(x.shape[1]), LEVEL_SHARE * level])
    reach = round(SMOOTH_S / hop_s) // 2
    x = _smooth(x - x.mean(axis=0), occasion, reach)
    thinned = np.arange(0, len(x), -(-len(x) // MOST_WINDOWS))
    few = x[thinned]
    distance = _distances(few, few)
    quiet = _quiet(level[thinned])
    groups = np.full(len(few), OFF_GROUP, np.intp)
    neighbour = max(round(NEIGHBOUR_S / hop_s), FEWEST_NEIGHBOURS)
    groups[~quiet] = _grouped(distance[np.ix_(~quiet, ~quiet)], neighbour)
    longest = _longest_runs(groups, occasion[thinned], thinned)
    found, sizes = np.unique(groups, return_counts=True)
    states = [g for g, n in zip(found, sizes, strict=True) if n >= FEWEST_WINDOWS and longest[g] >= overlap + reach]
    members = np.isin(groups, states)
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


def _quiet(level_dbfs: Floats) -> npt.NDArray[np.bool_]:
    """Windows [n] below the widest gap between levels, where it is so wide that the machine must be off there."""
    ordered = np.sort(level_dbfs)
    gap = int(np.argmax(np.diff(ordered)))
    quiet = level_dbfs <= ordered[gap]
    wide = ordered[gap + 1] - ordered[gap] >= QUIET_DB
    return np.asarray(quiet & wide & (np.count_nonzero(quiet) >= FEWEST_WINDOWS))


def _grouped(distance: Floats, neighbour: int) -> Labels:
    """distance [n, n] -> connected component of each [n]."""
    at = min(neighbour, len(distance) - 1)
    density = np.maximum(np.partition(distance, at, axis=1)[:, at], 1e-9)
    near = distance <= STEP * np.sqrt(density[:, None] * density)
    return _connected(near | near.T)


def _connected(near: npt.NDArray[np.bool_]) -> Labels:
    """near [n, n], symmetric -> connected component of each [n], numbered by first appearance. scipy's own would cost
    every calibration 20 MB, nearly all of it for importing sparse matrices."""
    label = np.full(len(near), -1, np.intp)
    for seed in range(len(near)):
        if label[seed] >= 0:
            continue
        number, reached = int(label.max()) + 1, np.array([seed])
        while len(reached):
            label[reached] = number
            reached = np.flatnonzero(near[reached].any(axis=0) & (label < 0))
    return label


def _longest_runs(groups: Labels, session: npt.NDArray[np.intp], index: Labels) -> dict[int, int]:
    """Windows in a row, in one session, of each group: the windows at changes of state resemble each other as well, but
    never for long. index [n]: place of each among all windows, some of which may have been thinned out."""
    change = np.flatnonzero((groups[1:] != groups[:-1]) | (session[1:] != session[:-1])) + 1
    longest: dict[int, int] = {}
    for part in np.split(np.arange(len(groups)), change):
        name = int(groups[part[0]])
        longest[name] = max(longest.get(name, 0), int(index[part[-1]] - index[part[0]]) + 1)
    return longest


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
