"""Weights from the statistics of a machine's normal clips, which multiply its distances (report C, systems 1 and 2).

The report gives no formula; this is ours, after what it says. A clip is described by v: its TWFR spectrum
(time-weighted frequency representation: every mel band's frames sorted, weighted by powers of r) and, or, its
embedding. Against the clips of one domain z = (v - their mean) / deviation, g = mean |z|, and the excess of a clip is

    e = max(0, (g - median g of these clips) / their median absolute deviation)

Each of these clips is compared with the mean of the others. The deviation of v is that within domains, all pooled: ten
target clips do not tell it. The weight is 1 + strength * e / (1 + e) with the smallest e over all domains, since a
normal clip of the target is far from the source's statistics and would otherwise be punished for its domain. It is
bounded: a normal clip in a state of its own may have an e of 20, and would come out above all faults. Supplemental
clips are a domain of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    strength: Annotated[float, Meta(ge=0)] = 0.1  # what the largest weight is above 1
    supplemental: bool = False  # system 2: noise and clean clips take part in the statistics


def twfr(log_mel: Floats, r: float) -> Floats:
    """[frames, bands] -> [bands]: frames of each band sorted downwards, weights r^0, r^1, ... / their sum."""
    weights = r ** np.arange(len(log_mel), dtype=np.float64)
    return np.asarray(weights / weights.sum() @ np.sort(log_mel, axis=0)[::-1])


def excess_weights(domains: Sequence[Floats], normals: Floats, test: Floats, strength: float) -> Weights:
    """Weights of test [m, dim] and normals [n, dim] by the clips of each domain [d, dim], the source first; a domain of
    fewer than two clips has no statistics."""
    domains = [x for x in domains if len(x) > 1]
    within = np.concatenate([x - x.mean(axis=0) for x in domains])
    sd = np.sqrt((within**2).sum(axis=0) / max(1, len(within) - len(domains)))
    sd = np.where(sd > 0, sd, 1.0)
    usual = [_left_out(x, sd) for x in domains]
    # The spread of g over ten target clips may come out as nearly nothing: it is at least that over the source's.
    least = _mad(usual[0]) or 1.0

    def weight(x: Floats) -> Floats:
        excesses = [
            (_g(x, of.mean(axis=0), sd) - np.median(g)) / max(_mad(g), least)
            for of, g in zip(domains, usual, strict=True)
        ]
        excess = np.maximum(0, np.min(excesses, axis=0))
        return np.asarray(1 + strength * excess / (1 + excess))

    return weight(test), weight(normals)


def _g(x: Floats, mean: Floats, sd: Floats) -> Floats:
    return np.asarray(np.abs((x - mean) / sd).mean(axis=1))


def _left_out(x: Floats, sd: Floats) -> Floats:
    """g of each row of x [n, dim] against the mean of the others, [n]."""
    others = (x.sum(axis=0) - x) / (len(x) - 1)
    return np.asarray(np.abs((x - others) / sd).mean(axis=1))


def _mad(g: Floats) -> float:
    return float(np.median(np.abs(g - np.median(g))))
