"""Robust standard scores with floors, and the combination of dependent p-values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, ndtri

from asd_agent.types import Floats

SMALLEST_P = 1e-300

# The least scale of an indicator, by the last part of its name: below it a difference is not heard, only measured.
# Levels and lines in dB, the rest natural logarithms of ratios.
FLOORS: dict[str, float] = {
    "level": 0.5,
    "energy": 0.5,
    "flatness": 0.03,
    "burst": 0.05,
    "spectral": 0.02,
    "negentropy": 0.05,
    "rms_db": 1.0,
    "peak_db": 1.0,
    "line": 0.1,
    "tile_line": 0.1,
    "vanes": 0.1,
    "peak": 0.1,
    "full": 0.3,
    "tiles": 0.3,
}
FAMILY_FLOORS: dict[str, float] = {"orders": 1.0, "shape": 0.02, "bands": 0.05}
_FLOOR = 0.02
_GROUP_FLOOR = 0.25  # of the median scale of the indicators of the same kind


def family(name: str) -> str:
    return name.partition(".")[0]


def kind(name: str) -> tuple[str, str]:
    """Indicators of one kind share a unit: (family, last part of the name), all spectral lines being one kind."""
    first = family(name)
    return (first, "") if first == "orders" else (first, name.rpartition(".")[2])


def floors(names: list[str]) -> Floats:
    return np.array([FLOORS.get(kind(n)[1], FAMILY_FLOORS.get(family(n), _FLOOR)) for n in names])


def centre_and_scale(values: Floats, names: list[str]) -> tuple[Floats, Floats]:
    """values [windows, indicators], NaN = not measured -> (median, scale), each [indicators].

    The scale is the largest of 1.4826 MAD, 0.7 SD and the 90 % deviation as a Gaussian would have it, so that heavy
    tails do not become false alarms; never below the floor of its kind.
    """
    centre = np.nanmedian(values, axis=0)
    deviation = np.abs(values - centre)
    mad = 1.4826 * np.nanmedian(deviation, axis=0)
    tail = np.nanquantile(deviation, 0.9, axis=0) / 1.6449
    spread = np.maximum(np.maximum(mad, 0.7 * np.nanstd(values, axis=0)), tail)
    kinds: dict[tuple[str, str], list[int]] = {}
    for i, name in enumerate(names):
        kinds.setdefault(kind(name), []).append(i)
    for members in kinds.values():
        spread[members] = np.maximum(spread[members], _GROUP_FLOOR * np.median(spread[members]))
    return centre, np.maximum(spread, floors(names))


def log_two_sided_p(z: Floats) -> Floats:
    """ln p: loss counts as growth does. Logarithms, because strong faults lie beyond the smallest float."""
    return np.asarray(np.minimum(np.log(2.0) + log_ndtr(-np.abs(z)), 0.0))


def log_cauchy_of_groups(log_p: Floats, starts: npt.NDArray[np.intp]) -> Floats:
    """ln of one p-value from several dependent ones: T = mean cot(pi p), p = 1/2 - atan(T)/pi (Liu & Xie 2020). A p
    above 1/2 counts as 1/2: in the plain sum one near 1 outweighs a small one.

    For each of several groups of ln p [..., n], NaN = not measured, that begin at `starts` [groups] and follow each
    other -> [..., groups], NaN for a group of which nothing was measured.
    """
    known = ~np.isnan(log_p)
    p = np.exp(log_p)
    with np.errstate(all="ignore"):
        log_cot = np.where(p < 1e-8, -np.log(np.pi) - log_p, np.log(1 / np.tan(np.pi * np.minimum(p, 0.5)) + 0.0))
        log_cot = np.where(known, log_cot, -np.inf)
        largest = np.maximum(np.maximum.reduceat(log_cot, starts, axis=-1), -30.0)
        sizes = np.diff(np.append(starts, log_p.shape[-1]))
        terms = np.exp(log_cot - np.repeat(largest, sizes, axis=-1))
        count = np.add.reduceat(known, starts, axis=-1, dtype=np.float64)
        log_t = largest + np.log(np.add.reduceat(terms, starts, axis=-1) / count + 1e-13)
        near = np.log(0.5 - np.arctan(np.exp(np.minimum(log_t, 18.0))) / np.pi)
        return np.asarray(np.where(log_t > 18.0, -np.log(np.pi) - log_t, near), np.float64)


def upper_z(p: npt.ArrayLike) -> Floats:
    """The standard score with upper tail probability p."""
    return np.asarray(-ndtri(np.clip(p, SMALLEST_P, 1 - 1e-12)))
