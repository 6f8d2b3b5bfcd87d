"""Which part of an embedding deviates, in words: "2.0-4.1 kHz louder (z 7)". Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from asd_agent.encode.meta import Axis, Output, Quantity

Array = npt.NDArray[np.floating]

_LIMIT = 3.0  # below this a single value is within what calibration showed
_SHARE = 1 / 3  # a segment reaches as far as its values stay above this share of its peak
_HOLE = 2  # so many weaker values in a row do not end a segment
_CANDIDATES = 8  # segments sought on an axis before the heaviest are named
_ALL = (0.0, math.inf)  # of the spectrum
_TOUCH = 1.05  # bands this close are neighbours
_MOST = 999.0  # a value that calibration never saw change has no sensible upper end
_WORDS: dict[Quantity, tuple[str, str]] = {
    "level": ("{} louder", "{} quieter"),
    "unsteadiness": ("{} less steady", "{} steadier"),
    "modulation": ("more modulation at {}", "less modulation at {}"),
}


@dataclass(frozen=True, slots=True)
class _Segment:
    axis: Axis
    first: int
    last: int
    peak: int
    z: float  # at the peak, signed
    weight: float  # sum of the squares over the segment
    band_hz: tuple[float, float]  # of a modulation: the part of the spectrum that has it


def describe(output: Output, deviation: Array, parts: int = 2) -> str:
    """Words for a standardised signed deviation [dim] from the nearest normal (`Bank.deviation`).

    Levels are relative to the whole sound, which the front end scales to the same RMS: one band that grows
    makes the others fall. Empty for an embedding whose values have no labels.
    """
    if len(deviation) != output.dim:
        raise ValueError(f"{output.name}: deviation of {len(deviation)} values, the embedding has {output.dim}")
    found = _all_segments(output, deviation)
    strong = [s for s in found if abs(s.z) >= _LIMIT][:parts]
    if strong:
        return ", ".join(_words(s) for s in strong)
    return f"many small changes, most: {_words(found[0])}" if found else ""


def band(output: Output, deviation: Array) -> tuple[float, float] | None:
    """From and to in Hz of the part of the spectrum that deviates most; None where the values tell none."""
    found = [s for s in _all_segments(output, deviation) if s.axis.quantity != "modulation" or s.band_hz != _ALL]
    if not found:
        return None
    if found[0].band_hz != _ALL:
        return found[0].band_hz
    hz = found[0].axis.values
    first, last = found[0].first, found[0].last
    low = (hz[first - 1] + hz[first]) / 2 if first > 0 else hz[first] * 0.9
    high = (hz[last] + hz[last + 1]) / 2 if last + 1 < len(hz) else hz[last] * 1.1
    return float(low), float(high)


def _all_segments(output: Output, deviation: Array) -> list[_Segment]:
    """Of all axes, the heaviest first."""
    found: list[_Segment] = []
    start = 0
    for axis in output.axes:
        values = np.asarray(deviation[start : start + len(axis.values)], np.float64)
        found.extend(_segments(axis, np.nan_to_num(values).clip(-_MOST, _MOST)))
        start += len(axis.values)
    return sorted(_joined(found), key=lambda s: -s.weight)


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


def _segments(axis: Axis, values: npt.NDArray[np.float64]) -> list[_Segment]:
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
        found.append(_Segment(axis, first, last, peak, z, weight, axis.band_hz or _ALL))
        left[first : last + 1] = 0.0
    return found


def _reach(member: npt.NDArray[np.bool_], peak: int, step: int) -> int:
    """Last member from the peak in one direction, across holes of at most _HOLE values."""
    edge, hole, i = peak, 0, peak + step
    while 0 <= i < len(member) and hole <= _HOLE:
        edge, hole = (i, 0) if member[i] else (edge, hole + 1)
        i += step
    return edge


def _words(segment: _Segment) -> str:
    hz = segment.axis.values
    text = _WORDS[segment.axis.quantity][segment.z < 0].format(_range(hz[segment.first], hz[segment.last]))
    if segment.band_hz != _ALL:
        text += f" of the sound at {_range(*segment.band_hz)}"
    return f"{text} (z {abs(segment.z):.0f})"


def _range(low: float, high: float) -> str:
    if low == high:
        return _frequency(low)
    if (low < 1000) == (high < 1000):
        unit = _frequency(high).split()[1]
        return f"{_frequency(low).split()[0]}-{_frequency(high).split()[0]} {unit}"
    return f"{_frequency(low)}-{_frequency(high)}"


def _frequency(hz: float) -> str:
    return f"{hz:.0f} Hz" if hz < 1000 else f"{hz / 1000:.3g} kHz"
