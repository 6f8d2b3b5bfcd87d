"""One FFT of the whole window, shared by all indicator families.

The window is made gain- and offset-free first (mean removed, unit RMS), so that everything derived from it is. Only
scipy.fft is used: it transforms float32 as float32, and scipy.signal would cost the agent 0.8 s and 60 MB at import.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from asd_agent.types import Samples

Complex = npt.NDArray[np.complex64]

EDGE_S = 0.02  # faded in and out: else the jump from the last sample to the first fills the weak bands with one impulse
PIECE = 8192  # bins worked on at a time
TINY = 1e-20  # keeps logarithms finite; unit-RMS input puts every real value far above


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A window in the frequency domain; `bins[k]` lies at k * df_hz."""

    samples: Samples  # [n] zero mean, unit RMS, edges faded, cut to a length that transforms fast
    rate_hz: int
    bins: Complex  # [n // 2 + 1] rfft of the samples, no taper
    power: Samples  # [n // 2 + 1] |Hann-tapered spectrum|^2
    log_power: Samples  # [n // 2 + 1] natural logarithm of it

    @property
    def df_hz(self) -> float:
        return self.rate_hz / len(self.samples)

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.rate_hz


def transform(samples: Samples, rate_hz: int) -> Spectrum:
    """samples [n], not constant, finite -> Spectrum."""
    x = samples[: 2 * fast_length(len(samples) // 2)].astype(np.float32, copy=False)
    x = x - np.float32(x.mean(dtype=np.float64))
    x /= max(x.max(), -x.min())  # squares of any gain fit float32
    ramp = _ramp(min(round(EDGE_S * rate_hz), len(x) // 4))
    x[: len(ramp)] *= ramp
    x[-len(ramp) :] *= ramp[::-1]
    x /= np.float32(np.sqrt(np.dot(x, x) / len(x)))
    bins: Complex = scipy.fft.rfft(x)
    power = _hann_power(bins)
    return Spectrum(x, rate_hz, bins, power, np.log(power))


def _hann_power(bins: Complex) -> Samples:
    """A Hann taper is a three-point sum in the frequency domain. In pieces that stay in the cache; never zero."""
    power = np.empty(len(bins), np.float32)
    for first in range(1, len(bins) - 1, PIECE):
        last = min(first + PIECE, len(bins) - 1)
        tapered = bins[first:last] - np.float32(0.5) * (bins[first - 1 : last - 1] + bins[first + 1 : last + 1])
        power[first:last] = tapered.real**2 + tapered.imag**2 + np.float32(TINY)
    power[0], power[-1] = power[1], power[-2]
    return power


def _ramp(length: int) -> Samples:
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)


def fast_length(n: int) -> int:
    """The largest product of 2, 3 and 5 that is <= n (at most a few percent smaller)."""
    best = 1
    five = 1
    while five <= n:
        three = five
        while three <= n:
            best = max(best, three << ((n // three).bit_length() - 1))
            three *= 3
        five *= 5
    return best


def block_medians(values: Samples, width: int) -> Samples:
    """Medians of consecutive blocks on the last axis, [..., n] -> [..., n // width]; a rest at the end is left out."""
    blocks = values.shape[-1] // width
    inside = values[..., : blocks * width].reshape(*values.shape[:-1], blocks, width)
    return np.asarray(np.partition(inside, width // 2, axis=-1)[..., width // 2])


@dataclass(frozen=True, slots=True)
class Floor:
    """The background under the lines of a spectrum: block medians, joined by straight lines where it is asked for."""

    width: int  # bins per block
    medians: Samples  # [blocks]

    @classmethod
    def of(cls, values: Samples, width: int) -> Floor:
        """values [n]: usually log power, so that the median is the geometric background."""
        width = max(3, min(width, len(values) // 3))
        return cls(width, block_medians(values, width))

    def at(self, bins: npt.NDArray[np.integer] | npt.NDArray[np.floating]) -> Samples:
        centres = (np.arange(len(self.medians)) + 0.5) * self.width
        return np.asarray(np.interp(bins, centres, self.medians), np.float32)


def local_maximum(values: Samples, reach: int = 1) -> Samples:
    """Each value replaced by the largest within `reach` places on its last axis."""
    out = values.copy()
    for shift in range(1, reach + 1):
        np.maximum(out[..., shift:], values[..., :-shift], out=out[..., shift:])
        np.maximum(out[..., :-shift], values[..., shift:], out=out[..., :-shift])
    return out


def log_edges(low_hz: float, high_hz: float, bands: int) -> npt.NDArray[np.float64]:
    """[bands + 1] edges, equally spaced in log frequency."""
    return np.geomspace(low_hz, high_hz, bands + 1)
