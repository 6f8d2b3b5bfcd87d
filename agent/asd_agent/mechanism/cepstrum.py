"""Cepstrum: a family of equally spaced lines (harmonics, sidebands) becomes one peak at 1 / spacing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.fft

from asd_agent.mechanism.spectrum import Floor, Spectrum, fast_length

FINEST_HZ = 0.5  # resolution of the log spectrum that is kept: quefrencies up to 1 s
ENVELOPE_HZ = 400.0  # wider than any line family counted as one
OCTAVES_MS = (2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)


def real_cepstrum(spectrum: Spectrum) -> tuple[npt.NDArray[np.float32], float]:
    """(values in units of their own noise [quefrencies], step in s). The spectral envelope is taken out first."""
    group = max(1, int(FINEST_HZ / spectrum.df_hz))
    count = fast_length(len(spectrum.log_power) // group)
    fine = spectrum.log_power[: count * group].reshape(count, group) @ np.full(group, 1 / group, np.float32)
    step_hz = group * spectrum.df_hz
    fine = fine - Floor.of(fine, max(8, round(ENVELOPE_HZ / step_hz))).at(np.arange(count))
    values = scipy.fft.irfft(fine, n=2 * count)[:count]
    noise = 1.4826 * np.median(np.abs(values[count // 8 :])) + 1e-12
    return values / np.float32(noise), 0.5 / (count * step_hz)


def cepstrum(spectrum: Spectrum, shaft_hz: float | None = None) -> dict[str, float]:
    """The tallest rahmonic in each octave of quefrency, and the one of the shaft where its speed is known."""
    values, step_s = real_cepstrum(spectrum)
    out: dict[str, float] = {}
    for low, high in pairwise(OCTAVES_MS):
        part = values[round(low / 1000 / step_s) : round(high / 1000 / step_s)]
        if len(part):
            out[f"cepstrum.{low:g}-{high:g}ms.peak"] = float(np.log(1 + max(float(part.max()), 0.0)))
    if shaft_hz is not None:
        centre = 1 / shaft_hz / step_s
        part = values[int(centre * 0.99) : int(centre * 1.01) + 2]
        if len(part):
            out["cepstrum.shaft"] = float(np.log(1 + max(float(part.max()), 0.0)))
    return out
