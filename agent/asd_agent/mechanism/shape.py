"""Level (kept apart) and shape of the waveform: crest, kurtosis, skewness, impulse and shape factor, Teager energy.

The peak of a window grows with its length, E[max] ~ sigma sqrt(2 ln N): every peak is taken on sub-frames of half a
second, and the median and the largest of them are kept. The median answers to what repeats, the largest to one knock.
"""

from __future__ import annotations

import numpy as np

from asd_agent.mechanism.spectrum import Spectrum
from asd_agent.types import Samples

FRAME_S = 0.5
_SMALL = 1e-6


def level(samples: Samples) -> dict[str, float]:
    """dB re full scale, of the raw window. A gain change moves these and nothing else."""
    mean = samples.mean(dtype=np.float64)
    x = samples - np.float32(mean)
    peak = float(max(x.max(), -x.min())) + 1e-30
    x /= np.float32(peak)  # squares of any gain fit float32
    rms = peak * float(np.sqrt(np.dot(x, x) / len(x)))
    return {"level.rms_db": 20 * float(np.log10(rms + 1e-10)), "level.peak_db": 20 * float(np.log10(peak + 1e-10))}


def shape(spectrum: Spectrum) -> dict[str, float]:
    """Logarithms of ratios, so that growth is additive. Independent of gain, offset and polarity."""
    frames = _frames(spectrum)
    size = np.abs(frames)
    power = frames * frames
    m2 = power.mean(axis=1) + _SMALL
    m3 = np.einsum("ij,ij->i", power, frames) / frames.shape[1]
    m4 = np.einsum("ij,ij->i", power, power) / frames.shape[1]
    rms, peak, mean = np.sqrt(m2), size.max(axis=1), size.mean(axis=1)
    crest, kurtosis = np.log(peak / rms), np.log(m4 / m2**2)
    teager, teager_kurtosis = _teager(frames, power, m2)
    root = np.sqrt(size).mean(axis=1) ** 2
    return {
        "shape.crest": _median(crest),
        "shape.crest_max": float(crest.max()),
        "shape.kurtosis": _median(kurtosis),
        "shape.kurtosis_max": float(kurtosis.max()),
        "shape.skewness": _median(np.log(0.1 + np.abs(m3) / m2**1.5)),
        "shape.shape_factor": _median(np.log(rms / mean)),
        "shape.impulse_factor": _median(np.log(peak / mean)),
        "shape.clearance": _median(np.log(peak / root)),
        "shape.teager": _median(teager),
        "shape.teager_kurtosis": _median(teager_kurtosis),
        "shape.unsteadiness": float(np.std(np.log(m2))),
    }


def _teager(frames: Samples, power: Samples, m2: Samples) -> tuple[Samples, Samples]:
    """Teager-Kaiser energy x_n^2 - x_(n-1) x_(n+1) (Kaiser 1990): its mean per power rises with frequency, its
    kurtosis with impacts."""
    psi = power[:, 1:-1] - frames[:, :-2] * frames[:, 2:]
    mean = psi.mean(axis=1)
    psi -= mean[:, None]
    psi *= psi
    second = psi.mean(axis=1) + _SMALL**2
    fourth = np.einsum("ij,ij->i", psi, psi) / psi.shape[1]
    return np.log(np.maximum(mean / m2, 1e-4)), np.log(fourth / second**2 + _SMALL)


def _frames(spectrum: Spectrum) -> Samples:
    """[frames, samples]; one frame when the window is shorter than FRAME_S."""
    width = min(int(FRAME_S * spectrum.rate_hz), len(spectrum.samples))
    count = len(spectrum.samples) // width
    return spectrum.samples[: count * width].reshape(count, width)


def _median(values: Samples) -> float:
    return float(np.median(values))
