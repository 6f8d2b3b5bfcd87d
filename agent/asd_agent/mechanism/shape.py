"""Level (kept apart) and shape of the waveform: crest, kurtosis, skewness, impulse and shape factor, Teager energy.

The peak of a window grows with its length, E[max] ~ sigma sqrt(2 ln N): every peak is taken on sub-frames of half a
second, and the median and the largest of them are kept. The median answers to what repeats, the largest to one knock.
"""

from __future__ import annotations

import numpy as np

from asd_agent.mechanism.spectrum import Spectrum
from asd_agent.types import Samples

FRAME_S = 0.5
PIECE = 3  # frames worked on at a time: they stay in the cache
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
    pieces = [_moments(frames[i : i + PIECE]) for i in range(0, len(frames), PIECE)]
    m2, m3, m4, peak, mean, root, teager, teager_kurtosis = np.concatenate(pieces, axis=1)
    rms = np.sqrt(m2)
    crest, kurtosis = np.log(peak / rms), np.log(m4 / m2**2)
    return {
        "shape.crest": _median(crest),
        "shape.crest_max": float(crest.max()),
        "shape.kurtosis": _median(kurtosis),
        "shape.kurtosis_max": float(kurtosis.max()),
        "shape.skewness": _median(np.log(0.1 + np.abs(m3) / m2**1.5)),
        "shape.shape_factor": _median(np.log(rms / mean)),
        "shape.impulse_factor": _median(np.log(peak / mean)),
        "shape.clearance": _median(np.log(peak / root)),
        "shape.teager": _median(np.log(np.maximum(teager / m2, 1e-4))),
        "shape.teager_kurtosis": _median(np.log(teager_kurtosis)),
        "shape.unsteadiness": float(np.std(np.log(m2))),
    }


def _moments(frames: Samples) -> Samples:
    """[frames, samples] -> [8, frames]: mean powers 2, 3, 4, peak, mean size, squared mean root, Teager-Kaiser energy
    x_n^2 - x_(n-1) x_(n+1) (Kaiser 1990: its mean per power rises with frequency, its kurtosis with impacts)."""
    size = np.abs(frames)
    power = frames * frames
    count = frames.shape[1]
    psi = power[:, 1:-1] - frames[:, :-2] * frames[:, 2:]
    teager = psi.mean(axis=1)
    psi -= teager[:, None]
    psi *= psi
    second = psi.mean(axis=1) + _SMALL**2
    fourth = np.einsum("ij,ij->i", psi, psi) / psi.shape[1]
    return np.stack(
        (
            power.mean(axis=1) + _SMALL,
            np.einsum("ij,ij->i", power, frames) / count,
            np.einsum("ij,ij->i", power, power) / count,
            size.max(axis=1),
            size.mean(axis=1),
            np.sqrt(size).mean(axis=1) ** 2,
            teager,
            fourth / second**2 + _SMALL,
        )
    )


def _frames(spectrum: Spectrum) -> Samples:
    """[frames, samples]; one frame when the window is shorter than FRAME_S."""
    width = min(int(FRAME_S * spectrum.rate_hz), len(spectrum.samples))
    count = len(spectrum.samples) // width
    return spectrum.samples[: count * width].reshape(count, width)


def _median(values: Samples) -> float:
    return float(np.median(values))
