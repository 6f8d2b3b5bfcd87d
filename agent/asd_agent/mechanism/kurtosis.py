"""Spectral kurtosis and the infogram's negentropy per band; the kurtogram as an occasional extra.

Spectral kurtosis <|X|^4>/<|X|^2>^2 - 2 over short frames is 0 for stationary noise, -1 for a constant tone, large for
impacts (Antoni, Mech. Syst. Signal Process. 20, 2006). Negentropy E[q ln q] of the band's energy q over time is less
fooled by one knock (Antoni, infogram, 2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from asd_agent.mechanism.bands import HIGHEST, band_name
from asd_agent.mechanism.spectrum import Spectrum, log_edges
from asd_agent.types import Samples

FRAME_S = 0.016
COUNT = 12


def frame_power(spectrum: Spectrum) -> Samples:
    """[frames, bins] of a Hann spectrogram with a quarter overlap; the frame is a power of two near FRAME_S."""
    width = int(2 ** round(np.log2(spectrum.rate_hz * FRAME_S)))
    views = np.lib.stride_tricks.sliding_window_view(spectrum.samples, width)[:: 3 * width // 4]
    taper = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)).astype(np.float32)
    out = np.empty((len(views), width // 2 + 1), np.float32)
    chunk = max(1, (1 << 15) // width)  # a few frames at a time: the arrays stay in the cache
    for first in range(0, len(views), chunk):
        bins = scipy.fft.rfft(views[first : first + chunk] * taper, axis=1)
        out[first : first + chunk] = bins.real**2 + bins.imag**2
    return out


def spectral_kurtosis(power: Samples) -> Samples:
    """[frames, bins] -> [bins]."""
    mean = power.mean(axis=0) + np.float32(1e-12)
    return np.asarray(np.einsum("ij,ij->j", power, power) / len(power) / mean**2 - 2)


def kurtosis(spectrum: Spectrum) -> dict[str, float]:
    power = frame_power(spectrum)
    df = spectrum.rate_hz / 2 / (power.shape[1] - 1)
    edges = log_edges(3 * df, HIGHEST * spectrum.rate_hz / 2, COUNT)
    start = np.maximum(np.searchsorted(np.arange(power.shape[1]) * df, edges), 1)
    start[1:] = np.maximum(start[1:], start[:-1] + 1)  # every band holds a bin
    log_kurtosis = np.log(np.maximum(spectral_kurtosis(power) + 2, 0.5))
    mean_kurtosis = np.add.reduceat(log_kurtosis, start)[:-1] / np.diff(start)
    energy = np.add.reduceat(power, start, axis=1)[:, :-1] + np.float32(1e-12)
    share = energy / energy.mean(axis=0)
    negentropy = (share * np.log(share)).mean(axis=0)
    out = {"kurtosis.max": float(np.log(1 + np.sort(np.exp(log_kurtosis[1:-1]))[-4:].mean()))}
    for low, high, k, i in zip(edges[:-1], edges[1:], mean_kurtosis, negentropy, strict=True):
        name = band_name(low, high)
        out[f"kurtosis.{name}.spectral"] = float(k)
        out[f"kurtosis.{name}.negentropy"] = float(np.log(i + 1e-3))
    return out


@dataclass(frozen=True, slots=True)
class Kurtogram:
    bands_hz: npt.NDArray[np.float64]  # [tiles, 2]
    values: npt.NDArray[np.float64]  # [tiles] kurtosis of the complex envelope - 2
    levels: npt.NDArray[np.int64]  # [tiles] number of bands the spectrum was split into

    @property
    def best_hz(self) -> tuple[float, float]:
        low, high = self.bands_hz[int(np.argmax(self.values))]
        return float(low), float(high)


SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # levels 0, 1, log2 3, 2, log2 6, ... (Antoni 2007)


def kurtogram(spectrum: Spectrum, narrowest_hz: float = 250.0) -> Kurtogram:
    """Kurtosis of the band-passed complex envelope on a tree of bands; about 10 ms per 10 s at 16 kHz, so not in the
    hot path. Bands narrower than about three fault harmonics cannot hold an impact train: `narrowest_hz`."""
    top = spectrum.rate_hz / 2
    bands, values, levels = [], [], []
    for split in SPLITS:
        if split > 1 and top / split < narrowest_hz:
            break
        width = (len(spectrum.bins) - 1) // split
        taper = np.sin(np.pi * (np.arange(width, dtype=np.float32) + 0.5) / width)
        tiles = spectrum.bins[1 : 1 + split * width].reshape(split, width) * taper
        envelope = scipy.fft.ifft(tiles, axis=1)
        power = envelope.real**2 + envelope.imag**2
        edges = np.arange(split + 1) * top / split
        values.append(np.mean(power**2, axis=1) / (np.mean(power, axis=1) + 1e-20) ** 2 - 2)
        bands.append(np.stack((edges[:-1], edges[1:]), axis=1))
        levels.append(np.full(split, split))
    return Kurtogram(np.concatenate(bands), np.concatenate(values).astype(np.float64), np.concatenate(levels))
