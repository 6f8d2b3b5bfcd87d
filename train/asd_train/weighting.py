"""Weights from the statistics of a machine's normal clips, which multiply its distances (report C, system 1
and 2).

The report gives no formula; this is ours, after what it says (asd-facts, 5). A clip is described by v: its
TWFR spectrum (time-weighted frequency representation: every mel band's frames sorted, weighted by powers of
r) and, or, its embedding. z = (v - mean) / deviation over the normal clips, g = mean |z|, and the clip's
weight is

    1 + strength * max(0, (g - median g of the normals) / MAD of the normals)

so that a clip whose energy lies where that of normal clips lies keeps its score.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from asd_agent.types import Floats

Weights = tuple[Floats, Floats]  # of the test clips [m] and of the normal clips [n]


class Weight(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`weight:` of a scoring."""

    of: tuple[Literal["energy", "embedding"], ...] = (
        "energy",
        "embedding",
    )  # the weights of several multiply
    r: Annotated[float, Meta(ge=0, le=1)] = 0.99  # TWFR: 1 = mean over time, 0 = maximum
    strength: Annotated[float, Meta(ge=0)] = 1.0
    supplemental: bool = False  # system 2: noise and clean clips take part in the statistics


def twfr(log_mel: Floats, r: float) -> Floats:
    """[frames, bands] -> [bands]: frames of each band sorted downwards, weights r^0, r^1, ... / their sum."""
    weights = r ** np.arange(len(log_mel), dtype=np.float64)
    return np.asarray(weights / weights.sum() @ np.sort(log_mel, axis=0)[::-1])


def excess_weights(statistics: Floats, normals: Floats, test: Floats, strength: float) -> Weights:
    """Weights of test [m, dim] and normals [n, dim] by the statistics [s, dim] of clips taken as usual."""
    mean, sd = statistics.mean(axis=0), statistics.std(axis=0)
    sd = np.where(sd > 0, sd, 1.0)

    def g(x: Floats) -> Floats:
        return np.asarray(np.abs((x - mean) / sd).mean(axis=1))

    usual = g(statistics)
    median = np.median(usual)
    mad = float(np.median(np.abs(usual - median))) or 1.0

    def weight(x: Floats) -> Floats:
        return np.asarray(1 + strength * np.maximum(0, (g(x) - median) / mad))

    return weight(test), weight(normals)
