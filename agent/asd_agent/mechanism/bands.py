"""24 log bands of the spectrum: level against the median band, flatness (how tonal); centroid, roll-off, tonality."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asd_agent.mechanism.spectrum import Spectrum, block_medians, log_edges

COUNT = 24
LOWEST_HZ = 20.0
HIGHEST = 0.95  # of the Nyquist frequency: above it lives the anti-alias filter
LINE_NEIGHBOURHOOD_HZ = 8.0
_FAR_BELOW = 1e-9  # of the loudest band: a digitally empty band reads -90 dB, not minus infinity


def edges_hz(rate_hz: int) -> npt.NDArray[np.float64]:
    return log_edges(LOWEST_HZ, HIGHEST * rate_hz / 2, COUNT)


def band_name(low_hz: float, high_hz: float) -> str:
    return f"{low_hz:.0f}-{high_hz:.0f}Hz"


def band_of(name: str) -> tuple[float, float] | None:
    """The band in an indicator's name ("bands.100-130Hz.level"), in Hz."""
    for part in name.split("."):
        if part.endswith("Hz") and "-" in part:
            low, high = part[:-2].split("-")
            return float(low), float(high)
    return None


def bands(spectrum: Spectrum) -> dict[str, float]:
    edges = edges_hz(spectrum.rate_hz)
    start = np.minimum(np.searchsorted(np.arange(len(spectrum.power)) * spectrum.df_hz, edges), len(spectrum.power) - 1)
    counts = np.maximum(np.diff(start), 1)
    mean = np.add.reduceat(spectrum.power, start)[:-1] / counts
    mean_log = np.add.reduceat(spectrum.log_power, start)[:-1] / counts
    mean = mean + _FAR_BELOW * mean.max()
    level = 10 * np.log10(mean)
    level -= np.median(level)
    flatness = np.maximum(mean_log - np.log(mean), -12.0)
    out: dict[str, float] = {}
    for low, high, lev, flat in zip(edges[:-1], edges[1:], level, flatness, strict=True):
        name = band_name(low, high)
        out[f"bands.{name}.level"] = float(lev)
        out[f"bands.{name}.flatness"] = float(flat)
    return out | _whole(spectrum, mean * counts, edges)


def _whole(spectrum: Spectrum, energy: npt.NDArray[np.float32], edges: npt.NDArray[np.float64]) -> dict[str, float]:
    """Of the spectrum as a whole: where its weight lies (in octaves) and how much of it stands in lines."""
    octaves = np.log2(np.sqrt(edges[:-1] * edges[1:]))
    share = energy / energy.sum()
    centroid = float(share @ octaves)
    width = float(np.sqrt(share @ (octaves - centroid) ** 2))
    rolloff = float(np.interp(0.85, np.cumsum(share), octaves))
    tonal = _tonal_share(spectrum)
    return {
        "bands.centroid": centroid,
        "bands.width": width,
        "bands.rolloff": rolloff,
        "bands.tonal": float(np.log((tonal + 0.01) / (1.01 - tonal))),
    }


def _tonal_share(spectrum: Spectrum) -> float:
    """Share of the power in bins 13 dB above the median of their neighbourhood."""
    width = max(8, round(LINE_NEIGHBOURHOOD_HZ / spectrum.df_hz))
    medians = block_medians(spectrum.power, width)
    blocks = spectrum.power[: len(medians) * width].reshape(-1, width)
    lines = blocks[blocks > 20 * medians[:, None]].sum(dtype=np.float64)
    return float(lines / (spectrum.power.sum(dtype=np.float64) + 1e-20))
