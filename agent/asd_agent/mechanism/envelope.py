"""Squared envelope spectrum after cepstral pre-whitening, on the full band and on fixed tiles.

Pre-whitening keeps only the phase of every bin (Borghesani et al., Mech. Syst. Signal Process. 36, 2013): lines and
resonances lose their weight, impacts that repeat with a little jitter keep theirs (perfectly regular ones are a line
family, and show in the cepstrum). Bins far below the loudest part are faded out, or empty bands would be lifted into
noise. Tiles use the logarithm of the envelope, which a single knock cannot rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.fft

from asd_agent.mechanism.spectrum import Spectrum, block_medians, fast_length, local_maximum
from asd_agent.types import Samples

TILE_HZ = 1000.0
MOST_TILES = 12
MOST_BANDS = 16  # of the mean envelope
FADE = 1e-6  # power relative to the loudest 200 Hz: below it a bin is faded out
BACKGROUND_HZ = 10.0  # neighbourhood that a line stands against
OCTAVES = tuple(2.0**k for k in range(11))  # 1 Hz to 1024 Hz
_LOG2 = np.float32(np.log(2.0))


@dataclass(frozen=True, slots=True)
class Envelope:
    """Whitened power: 1 on average where there is only noise (exponentially distributed), large at a line."""

    df_hz: float
    full: Samples  # [bins]
    tiles: Samples  # [tiles, bins]
    tile_hz: float

    @property
    def top_hz(self) -> float:
        return float((self.tiles.shape[1] - 1) * self.df_hz)

    def tile_band(self, tile: int) -> tuple[float, float]:
        return tile * self.tile_hz, (tile + 1) * self.tile_hz


def envelope(spectrum: Spectrum, top_hz: float) -> Envelope:
    """Lines up to `top_hz` are wanted; tiles are wide enough to hold them."""
    white = prewhiten(spectrum)
    tile_hz, tiles = _tiles(spectrum.rate_hz, top_hz)
    keep = int(min(top_hz, 0.9 * tile_hz) / spectrum.df_hz)
    full = _full_spectrum(white, spectrum, keep)
    return Envelope(
        spectrum.df_hz,
        against_background(_power(full), spectrum.df_hz),
        against_background(_tile_power(white, spectrum.df_hz, tile_hz, tiles, keep), spectrum.df_hz),
        tile_hz,
    )


def full_envelope(spectrum: Spectrum, top_hz: float) -> Samples:
    """[bins] of the full band alone, up to `top_hz`: a longer `Envelope.full`."""
    keep = int(min(top_hz, 0.2 * spectrum.rate_hz) / spectrum.df_hz)
    power = _power(_full_spectrum(prewhiten(spectrum), spectrum, keep))
    return against_background(power, spectrum.df_hz)


def mean_envelope(spectrum: Spectrum, top_hz: float) -> tuple[Samples, Samples]:
    """(mean over narrow bands of their whitened squared envelope spectra [bins], kurtosis of each band's envelope
    [bands]).

    The spectral coherence of a pre-whitened signal, integrated over the carrier frequency without its phase (the
    enhanced envelope spectrum of Antoni et al., Mech. Syst. Signal Process. 92, 2017): faint lines of bands that ring
    differently add up. The kurtosis of the complex envelope is 0 for Gaussian noise, large for impacts.
    """
    white = prewhiten(spectrum)
    band_hz = max(TILE_HZ, spectrum.rate_hz / 2 / MOST_BANDS)
    bands = max(1, int(spectrum.rate_hz / 2 / band_hz + 0.01))
    keep = int(min(top_hz, 0.9 * band_hz) / spectrum.df_hz)
    width = min(int(band_hz / spectrum.df_hz), (len(white) - 1) // bands)
    length = 2 * fast_length(max(width // 2 + 1, int((width + keep) * 0.55)))
    total, peaked = np.zeros(keep, np.float32), np.empty(bands, np.float32)
    for band in range(bands):
        first = 1 + band * width
        analytic = scipy.fft.ifft(white[first : first + width], n=length)
        power = analytic.real**2 + analytic.imag**2
        mean = float(power.mean()) + 1e-30
        peaked[band] = float(np.dot(power, power)) / length / mean**2 - 2
        total += against_background(_power(scipy.fft.rfft(power - np.float32(mean))[:keep]), spectrum.df_hz)
    return total / np.float32(bands), peaked


def _full_spectrum(white: npt.NDArray[np.complex64], spectrum: Spectrum, keep: int) -> npt.NDArray[np.complex64]:
    """[keep] of the squared signal, which holds the squared envelope below twice the lowest carrier; decimated by block
    averages, whose aliases into the kept part lie 14 dB down or lower."""
    squared = scipy.fft.irfft(white, n=len(spectrum.samples))
    squared *= squared
    factor = max(1, int(spectrum.rate_hz / (5 * keep * spectrum.df_hz)))
    while len(squared) % factor:
        factor -= 1
    averaged = squared.reshape(-1, factor) @ np.full(factor, 1 / factor, np.float32)
    return np.asarray(scipy.fft.rfft(averaged)[:keep])


def prewhiten(spectrum: Spectrum) -> npt.NDArray[np.complex64]:
    size = np.abs(spectrum.bins)
    block = max(1, min(round(200.0 / spectrum.df_hz), len(size)))
    blocks = size[: len(size) // block * block].reshape(-1, block)
    loudest = float(np.einsum("ij,ij->i", blocks, blocks).max()) / block
    size += np.float32(np.sqrt(FADE * loudest) + 1e-12)
    white: npt.NDArray[np.complex64] = np.divide(spectrum.bins, size, dtype=np.complex64)
    white[0] = 0
    return white


def _tiles(rate_hz: int, top_hz: float) -> tuple[float, int]:
    width = max(TILE_HZ, 1.2 * top_hz, rate_hz / 2 / MOST_TILES)
    count = max(1, int(rate_hz / 2 / width + 0.01))
    return (width, count) if count > 1 else (rate_hz / 2, 1)


def _tile_power(bins: npt.NDArray[np.complex64], df_hz: float, tile_hz: float, tiles: int, keep: int) -> Samples:
    """[tiles, keep]. A crop of the spectrum moved to 0 Hz is the band's decimated analytic signal; the padding keeps
    the products of its far edges from folding onto the lines."""
    width = min(int(tile_hz / df_hz), (len(bins) - 1) // tiles)
    length = 2 * fast_length(max(width // 2 + 1, int((width + keep) * 0.55)))
    out = np.empty((tiles, keep), np.float32)
    for tile in range(tiles):  # one at a time: the arrays stay in the cache
        first = 1 + tile * width
        analytic = scipy.fft.ifft(bins[first : first + width], n=length)
        power = analytic.real**2 + analytic.imag**2
        power += np.float32(1e-3) * power.mean() + np.float32(1e-30)
        np.log(power, out=power)
        power -= power.mean()
        out[tile] = _power(scipy.fft.rfft(power)[:keep])
    return out


def _power(bins: npt.NDArray[np.complex64]) -> Samples:
    return np.asarray(bins.real**2 + bins.imag**2)


def against_background(power: Samples, df_hz: float) -> Samples:
    """Divide by the block median (the median of exponential noise is ln 2 of its mean); bins below 1 Hz are muted."""
    width = max(5, min(round(BACKGROUND_HZ / df_hz), power.shape[-1] // 2))
    blocks = block_medians(power, width)
    background = np.repeat(blocks, width, axis=-1)
    rest = power.shape[-1] - background.shape[-1]
    if rest:
        background = np.concatenate([background, np.repeat(blocks[..., -1:], rest, axis=-1)], axis=-1)
    white = power / (background + np.float32(1e-30)) * _LOG2
    white[..., : max(1, int(1.0 / df_hz))] = _LOG2
    return np.asarray(white)


def mute(values: Samples, df_hz: float, lines_hz: npt.NDArray[np.float64], reach: int = 2) -> Samples:
    """Values with the named lines (and `reach` bins either side) set to the background: shaft and mains harmonics show
    in every envelope and are no impacts."""
    out = values.copy()
    bins = np.rint(lines_hz / df_hz).astype(int)
    for shift in range(-reach, reach + 1):
        at = bins + shift
        out[..., at[(at >= 0) & (at < out.shape[-1])]] = _LOG2
    return out


def gain(values: Samples) -> Samples:
    """What a line adds to the strength of a train: log(1 + power), the best of three bins."""
    return np.asarray(np.log1p(local_maximum(values)))


def train_strength(
    gains: Samples,
    df_hz: float,
    base_hz: npt.NDArray[np.float64],
    spacing_hz: float | None,
    harmonics: int = 3,
) -> Samples:
    """[..., bins] and base frequencies [n] -> [..., n]: harmonics 1..3, and half as much for their sidebands."""
    total = np.zeros((*gains.shape[:-1], len(base_hz)), np.float32)
    for h in range(1, harmonics + 1):
        total += _look_up(gains, df_hz, h * base_hz)
        if spacing_hz is not None:
            total += 0.5 * _look_up(gains, df_hz, h * base_hz - spacing_hz)
            total += 0.5 * _look_up(gains, df_hz, h * base_hz + spacing_hz)
    return total


def _look_up(gains: Samples, df_hz: float, hz: npt.NDArray[np.float64]) -> Samples:
    bins = np.rint(hz / df_hz).astype(np.intp)
    inside = (bins > 0) & (bins < gains.shape[-1])
    return np.asarray(gains[..., np.where(inside, bins, 0)] * inside)


def periods(env: Envelope) -> dict[str, float]:
    """The strongest line in every octave of the envelope spectrum: periodic impacts without any kinematics."""
    out: dict[str, float] = {}
    for low, high in pairwise(OCTAVES):
        first, last = int(low / env.df_hz), int(min(high, env.top_hz) / env.df_hz)
        if last - first >= 4:
            out[f"envelope.{low:g}-{high:g}.line"] = float(np.log(env.full[first:last].max() + 0.1))
            out[f"envelope.{low:g}-{high:g}.tile_line"] = float(np.log(env.tiles[:, first:last].max() + 0.1))
    return out
