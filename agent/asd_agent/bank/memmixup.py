"""MemMixup (GenRep, 2025): the target bank widened by every target row mixed with a little of source rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import rows
from asd_agent.bank.memory import Memory
from asd_agent.types import Floats

NEIGHBOURS = 990  # published: all source clips of a DCASE machine
TARGET_SHARE = 0.9


def memmixup(target: npt.ArrayLike, source: npt.ArrayLike, *, neighbours: int = NEIGHBOURS) -> Floats:
    """target [t, dim], source [n, dim] -> [t + t * min(neighbours, n), dim]: the target, then 0.9 t + 0.1 s
    for every target row t and each of its nearest source rows s (Euclidean). Raises CalibrationError.
    """
    t = rows(target, 1, "target embeddings")
    s = rows(source, 1, "source embeddings")
    _, near = Memory.of(s).nearest(t, neighbours)
    mixed = TARGET_SHARE * t[:, None] + (1 - TARGET_SHARE) * s[near]
    return np.vstack([t, mixed.reshape(-1, t.shape[1])])
