"""Filters that go on from block to block, and the responses that simulated sounds are made with."""

from __future__ import annotations

import numpy as np

from asd_agent.types import Floats, Samples


class Convolver:
    """A streaming FIR filter: overlap-add by FFT."""

    def __init__(self, response: Floats) -> None:
        self._response = response
        self._tail = np.zeros(len(response) - 1)
        self._size = 0
        self._spectrum = np.zeros(0, np.complex128)

    def take(self, x: Floats) -> Floats:
        """[n] -> [n]; what rings on is kept for the next call."""
        taps, n = len(self._response), len(x)
        size = 1 << (n + taps - 2).bit_length()
        if size != self._size:
            self._size, self._spectrum = size, np.fft.rfft(self._response, size)
        y = np.fft.irfft(np.fft.rfft(x, size) * self._spectrum, size)[: n + taps - 1]
        y[: taps - 1] += self._tail
        self._tail = y[n:]
        return y[:n]


class FilteredNoise:
    """Gaussian noise through an FIR filter, RMS 1."""

    def __init__(self, response: Floats, rng: np.random.Generator) -> None:
        self._filter = Convolver(response / np.sqrt(np.sum(response**2)))
        self._rng = rng
        self._filter.take(rng.standard_normal(len(response)))  # past the filter's rise

    def take(self, n: int) -> Floats:
        return self._filter.take(self._rng.standard_normal(n))


def band_response(rate_hz: int, low: float, high: float, taps: int = 129) -> Floats:
    """A windowed-sinc band-pass; `low` and `high` as shares of the sampling rate."""
    k = np.arange(taps) - taps // 2
    return np.asarray((2 * high * np.sinc(2 * high * k) - 2 * low * np.sinc(2 * low * k)) * np.hanning(taps))


def ringing(modes: tuple[tuple[float, float, float], ...], rate_hz: int) -> Floats:
    """Sum of decaying sines: (frequency in Hz, amplitude, decay time in s)."""
    t = np.arange(round(7 * max(decay for _, _, decay in modes) * rate_hz)) / rate_hz
    return np.asarray(sum(a * np.exp(-t / decay) * np.sin(2 * np.pi * f * t) for f, a, decay in modes))


def rms(x: Floats | Samples) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
