"""Indicators in the units that people use. Inside they are logarithms, whose differences mean the same everywhere."""

from __future__ import annotations

import math

from asd_agent.mechanism.statistics import family

DB_PER_NEPER = 10 / math.log(10)  # of a power


def real(name: str, value: float) -> tuple[float, str]:
    """An indicator as computed by `Analyser` -> its value in real units, and the unit ("" for plain ratios)."""
    group, last = family(name), name.rpartition(".")[2]
    if group == "level":
        return value, "dBFS"
    if group == "orders" or last in ("level", "energy"):
        return value, "dB"
    if last in ("centroid", "rolloff"):
        return 2.0**value, "Hz"
    if last == "width":
        return value, "octaves"
    if last in ("flatness", "unsteadiness"):
        return DB_PER_NEPER * value, "dB"
    if last == "tonal":
        odds = math.exp(value)
        return min(max(100 * ((1.01 * odds - 0.01) / (1 + odds)), 0.0), 100.0), "%"
    if last in ("full", "tiles"):
        return value, ""
    return max(math.exp(value) - _OFFSETS.get((group, last), 0.0), 0.0), ""


def shown(name: str, value: float) -> str:
    """ "4.1", "-14.3 dB", "250 Hz"."""
    number, unit = real(name, value)
    text = f"{number:.0f}" if unit == "Hz" else f"{number:.1f}" if unit or abs(number) >= 100 else f"{number:.3g}"
    return f"{text} {unit}".rstrip()


_OFFSETS = {  # what was added before the logarithm
    ("shape", "skewness"): 0.1,
    ("wavelet", "burst"): 1e-4,
    ("kurtosis", "spectral"): 2.0,
    ("kurtosis", "max"): 3.0,
    ("kurtosis", "negentropy"): 1e-3,
    ("cepstrum", "peak"): 1.0,
    ("cepstrum", "shaft"): 1.0,
    ("envelope", "line"): 0.1,
    ("envelope", "tile_line"): 0.1,
    ("envelope", "vanes"): 0.1,
}
