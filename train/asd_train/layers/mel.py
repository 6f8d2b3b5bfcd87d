"""Pooling of spectral bins into bands, as plain matrices and indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def mel_filters(bands: int, bins: int, bin_hz: float, low_hz: float, high_hz: float) -> tuple[Array, Array]:
    """Mel triangles (1127 ln(1 + f/700)) as a pooling matrix and their centres in Hz.

    Every weight is the mean of the triangle over the width of the bin, so a band narrower than a bin is never
    empty; the weights of a band sum to 1 (mean power). Returns ([bins, bands], [bands]).
    """
    mel = np.linspace(_mel(low_hz), _mel(high_hz), bands + 2)
    corners = 700.0 * np.expm1(mel / 1127.0)
    edges = (np.arange(bins + 1) - 0.5) * bin_hz
    weights = np.empty((bins, bands))
    for band in range(bands):
        weights[:, band] = np.diff(_triangle_area(edges, *corners[band : band + 3]))
    return weights / weights.sum(axis=0), corners[1:-1]


def _mel(hz: float) -> float:
    return float(1127.0 * np.log1p(hz / 700.0))


def _triangle_area(f: Array, low: float, centre: float, high: float) -> Array:
    """Integral up to f of the triangle that is 0 at low and high and 1 at centre."""
    rise = (np.clip(f, low, centre) - low) ** 2 / (2 * (centre - low))
    fall = (high - np.clip(f, centre, high)) ** 2 / (2 * (high - centre))
    return rise + (high - centre) / 2 - fall


def octave_bands(per_octave: int, low_hz: float, bins: int, bin_hz: float) -> tuple[Array, Array]:
    """Bands of whole bins (at least one), about `per_octave` an octave, from `low_hz` to the last bin.

    Returns (first bin of every band and the end of the last [bands + 1], geometric centres in Hz [bands]).
    """
    count = int(np.ceil(per_octave * np.log2((bins - 1) * bin_hz / low_hz)))
    edges_hz = low_hz * 2.0 ** (np.arange(count + 1) / per_octave)
    first = np.unique(np.append(np.round(edges_hz / bin_hz), bins).clip(max=bins).astype(int))
    return first, bin_hz * np.sqrt(first[:-1] * (first[1:] - 1.0))


def pooling_weights(bins_of: Array, first: Array) -> tuple[Array, Array]:
    """How values in the order `bins_of` [n] (bins may come twice) are averaged over the bands of `first`.

    Returns (band of each value [n], its weight [n]); a value outside all bands has weight 0.
    """
    band = np.searchsorted(first, bins_of, side="right") - 1
    inside = (band >= 0) & (band < len(first) - 1)
    band = np.where(inside, band, 0)
    repeats = np.bincount(bins_of)[bins_of]
    return band, np.where(inside, 1.0 / (repeats * np.diff(first)[band]), 0.0)
