"""Running states found in the calibration windows themselves: idle and loaded, or different speeds.

Windows are split in two along the strongest direction of their band levels (and speed) only when the two groups are
far apart for their width; so a machine with one state keeps one regime, and one with several is not judged by their
mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from asd_agent.types import Floats

SMALLEST = 8  # windows of a regime
MOST = 6
APART = 4.0  # Ashman's D: 2 = just separated


def split(values: Floats, names: Sequence[str]) -> npt.NDArray[np.intp]:
    """values [windows, indicators] -> [windows] regime numbers 0.. ."""
    features = _features(values, names)
    labels = np.zeros(len(values), int)
    queue = [0]
    while queue and labels.max() + 1 < MOST:
        label = queue.pop(0)
        members = np.flatnonzero(labels == label)
        second = _second_group(features[members])
        if second is not None:
            labels[members[second]] = labels.max() + 1
            queue += [label, int(labels.max())]
    return labels


def _features(values: Floats, names: Sequence[str]) -> Floats:
    """Band levels in dB, and the speed in units that make 1 % as much as 1 dB in every band."""
    levels = [i for i, n in enumerate(names) if n.startswith("bands.") and n.endswith(".level")]
    columns = [values[:, levels]]
    if "context.speed_hz" in names:
        speed = values[:, list(names).index("context.speed_hz")]
        known = np.where(np.isfinite(speed), speed, np.nanmedian(speed))
        columns.append(100 * np.log(known)[:, None] * np.sqrt(max(len(levels), 1)))
    return np.nan_to_num(np.concatenate(columns, axis=1))


def _second_group(features: Floats) -> npt.NDArray[np.bool_] | None:
    """The windows to split off, or None when they are of one kind."""
    if len(features) < 2 * SMALLEST or features.shape[1] == 0:
        return None
    centred = features - features.mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    score = centred @ direction
    upper = _two_means(score)
    a, b = score[upper], score[~upper]
    if min(len(a), len(b)) < SMALLEST:
        return None
    separation = abs(a.mean() - b.mean()) * np.sqrt(2 / (a.var() + b.var() + 1e-12))
    return upper if separation > APART else None


def _two_means(score: Floats) -> npt.NDArray[np.bool_]:
    order = np.sort(score)
    n = np.arange(1, len(order))
    left = np.cumsum(order)[:-1]
    right = order.sum() - left
    between = left**2 / n + right**2 / (len(order) - n)  # maximal where the two groups' variance is least
    cut = int(np.argmax(between))
    return np.asarray(score > (order[cut] + order[cut + 1]) / 2)
