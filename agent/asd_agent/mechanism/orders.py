"""Prominence of the spectral lines that the kinematics predicts: dB over the spectrum around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asd_agent.mechanism.lines import Line, LineGroup
from asd_agent.mechanism.spectrum import Floor, Spectrum

FLOOR_HZ = 8.0
DB = float(10 / np.log(10))
LEAST = 4.0  # added power: where there is no line, the logarithm of noise would stray by 5 dB and hide one that comes
APART = 4.0  # bins between a carrier and its sidebands: the Hann taper's main lobe is 4 wide


def line_floor(spectrum: Spectrum) -> Floor:
    return Floor.of(spectrum.log_power, round(FLOOR_HZ / spectrum.df_hz))


def orders(
    spectrum: Spectrum, groups: Sequence[LineGroup], shaft_hz: float | None, tolerance: float = 0.001
) -> dict[str, float]:
    """{"orders.<group>": mean dB over the floor of its strongest lines}; groups that cannot be placed or resolved are
    left out."""
    placed = [g for g in groups if resolvable(g, spectrum.df_hz, shaft_hz)]
    members = [(g.name, line) for g in placed for line in g.lines]
    peaks = [peak_bin(spectrum, line, shaft_hz or 0.0, tolerance) for _, line in members]
    bins = np.array([peak or 0 for peak in peaks], int)
    above = DB * np.log(np.exp(np.minimum(spectrum.log_power[bins] - line_floor(spectrum).at(bins), 60.0)) + LEAST)
    found: dict[str, list[float]] = {}
    for (name, _), peak, value in zip(members, peaks, above, strict=True):
        if peak is not None:
            found.setdefault(f"orders.{name}", []).append(float(value))
    return {name: float(np.mean(sorted(values)[-_kept(len(values)) :])) for name, values in found.items()}


def _kept(lines: int) -> int:
    """Of many sidebands the strongest pair: eccentricity raises one, a broken tooth all of them."""
    return lines if lines < 4 else 2


def resolvable(group: LineGroup, df_hz: float, shaft_hz: float | None) -> bool:
    if shaft_hz is None:
        return all(line.order == 0 for line in group.lines)
    return group.spacing is None or abs(group.spacing.hz(shaft_hz)) >= APART * df_hz


def peak_bin(spectrum: Spectrum, line: Line, shaft_hz: float, tolerance: float) -> int | None:
    """The strongest bin within the tolerance (at least one bin either side); None outside the spectrum."""
    centre = line.hz(shaft_hz) / spectrum.df_hz
    reach = max(1.0, tolerance * abs(line.order) * shaft_hz / spectrum.df_hz)
    first, last = int(np.floor(centre - reach + 0.5)), int(np.floor(centre + reach + 0.5))
    if first < 2 or last >= len(spectrum.log_power) - 1:
        return None
    return first + int(np.argmax(spectrum.log_power[first : last + 1]))
