"""Which parts of an embedding deviate: bands of the spectrum, modulations. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from asd_agent.encode.meta import Axis, Output
from asd_agent.reasons import Change
from asd_agent.types import Floats

Array = npt.NDArray[np.floating]

_LIMIT = 3.0  # below this a single value is within what calibration showed
_SHARE = 1 / 3  # a segment reaches as far as its values stay above this share of its peak
_HOLE = 2  # so many weaker values in a row do not end a segment
_CANDIDATES = 8  # segments sought on an axis before the heaviest are named
_ALL = (0.0, math.inf)  # of the spectrum
_TOUCH = 1.05  # bands this close are neighbours
_MOST = 999.0  # a value that calibration never saw change has no sensible upper end


@dataclass(frozen=True, slots=True)
class _Segment:
    axis: Axis
    start: int  # of the axis in the embedding
    first: int
    last: int
    z: float  # at the peak, signed
    weight: float  # sum of the squares over the segment
    band_hz: tuple[float, float]  # of a modulation: the part of the spectrum that has it


def levelled(output: Output, difference: Array) -> Floats:
    """A difference [dim] from normal, without what all levels of a run have in common.

    Levels are relative to the whole sound, which the front end scales to the same RMS: one loud band makes all others
    fall. Where it covers less than half of the bands, the median band is one of the others.
    """
    _check(output, difference)
    found = np.array(difference, np.float64)
    for axis, start in _runs(output):
        if axis.quantity == "level":
            run = slice(start, start + len(axis.values))
            found[run] -= np.median(found[run])
    return found


def changes(output: Output, z: Array, difference: Array) -> list[Change]:
    """Standard scores and differences in dB, both [dim], of an embedding from normal -> what deviates, the heaviest
    first. Empty for an embedding whose values have no labels."""
    _check(output, z)
    found: list[_Segment] = []
    for axis, start in _runs(output):
        values = np.asarray(z[start : start + len(axis.values)], np.float64)
        found.extend(_segments(axis, start, np.nan_to_num(values).clip(-_MOST, _MOST)))
    return [_change(s, difference) for s in sorted(_joined(found), key=lambda s: -s.weight)]


def level_change_db(output: Output, difference: Array, band_hz: tuple[float, float]) -> list[float]:
    """Mean difference in dB of the levels of a band, for each run of levels that has values there."""
    found = []
    for axis, start in _runs(output):
        hz = np.array(axis.values)
        inside = np.flatnonzero((hz >= band_hz[0]) & (hz <= band_hz[1]))
        if axis.quantity == "level" and len(inside):
            found.append(float(np.mean(difference[start + inside])))
    return found


def _check(output: Output, values: Array) -> None:
    if len(values) != output.dim:
        raise ValueError(f"{output.name}: deviation of {len(values)} values, the embedding has {output.dim}")


def _runs(output: Output) -> list[tuple[Axis, int]]:
    """Every axis and where its values begin."""
    ends = np.cumsum([0, *(len(axis.values) for axis in output.axes)])
    return [(axis, int(first)) for axis, (first, _) in zip(output.axes, pairwise(ends), strict=True)]


def _change(segment: _Segment, difference: Array) -> Change:
    axis, part = segment.axis, slice(segment.start + segment.first, segment.start + segment.last + 1)
    reach = _reach_hz(axis.values, segment.first, segment.last)
    modulation = axis.quantity == "modulation"
    own = np.nan_to_num(np.asarray(difference[part], np.float64)).clip(-_MOST, _MOST)
    own = own[own * segment.z > 0]
    return Change(
        quantity=axis.quantity,
        change_db=float(np.mean(own)) if len(own) else 0.0,
        band_hz=reach if not modulation else segment.band_hz if segment.band_hz != _ALL else None,
        rates_hz=(axis.values[segment.first], axis.values[segment.last]) if modulation else None,
        z=segment.z,
    )


def _reach_hz(hz: list[float], first: int, last: int) -> tuple[float, float]:
    """From and to, half-way to the neighbours."""
    low = hz[first] - (hz[first] - hz[first - 1] if first > 0 else hz[1] - hz[0]) / 2
    high = hz[last] + (hz[last + 1] - hz[last] if last + 1 < len(hz) else hz[-1] - hz[-2]) / 2
    return low, high


def _joined(found: list[_Segment]) -> list[_Segment]:
    """Modulations of neighbouring bands of the spectrum at the same rates are one: an impact rings in several."""
    out = [s for s in found if s.band_hz == _ALL]
    left = sorted((s for s in found if s.band_hz != _ALL), key=lambda s: -s.weight)
    while left:
        top = left.pop(0)
        (low, high), weight = top.band_hz, top.weight
        for other in sorted(left, key=lambda s: abs(math.log(s.band_hz[0] / top.band_hz[0]))):  # from it outwards
            first, last = other.band_hz
            alike = other.z * top.z > 0 and abs(other.z) >= _SHARE * abs(top.z)
            same_rates = other.first <= top.last and top.first <= other.last
            if alike and same_rates and first <= high * _TOUCH and last * _TOUCH >= low:
                low, high, weight = min(low, first), max(high, last), weight + other.weight
                left.remove(other)
        out.append(replace(top, weight=weight, band_hz=(low, high)))
    return out


def _segments(axis: Axis, start: int, values: Floats) -> list[_Segment]:
    """Segments of one sign from the highest peak down, each taken out before the next is sought."""
    left = values.copy()
    found: list[_Segment] = []
    while len(found) < _CANDIDATES:
        peak = int(np.argmax(np.abs(left)))
        z = float(left[peak])
        if z == 0.0 or (found and abs(z) < _LIMIT):
            break
        member = left * np.sign(z) >= max(abs(z) * _SHARE, min(_LIMIT, abs(z)))
        first, last = _reach(member, peak, -1), _reach(member, peak, 1)
        weight = float(np.sum(left[first : last + 1][member[first : last + 1]] ** 2))
        found.append(_Segment(axis, start, first, last, z, weight, axis.band_hz or _ALL))
        left[first : last + 1] = 0.0
    return found


def _reach(member: npt.NDArray[np.bool_], peak: int, step: int) -> int:
    """Last member from the peak in one direction, across holes of at most _HOLE values."""
    edge, hole, i = peak, 0, peak + step
    while 0 <= i < len(member) and hole <= _HOLE:
        edge, hole = (i, 0) if member[i] else (edge, hole + 1)
        i += step
    return edge
