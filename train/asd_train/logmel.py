"""The challenge baseline's log-mel spectrogram (librosa's conventions), for the autoencoder and for TWFR.

128 Slaney mel bands, n_fft 1024, hop 512, periodic Hann window, centred frames with zero padding, power, dB.
"""

from __future__ import annotations

import functools
import sys

import numpy as np

from asd_agent.types import Floats, Samples
from asd_train.data.audio import read_audio

N_FFT = 1024
HOP = 512
BANDS = 128
_WINDOW = np.hanning(N_FFT + 1)[:-1].astype(np.float32)


def log_mel(samples: Samples, rate_hz: int) -> Floats:
    """samples [n] -> [frames, 128] in dB (10 log10 of power), frames = 1 + n // 512."""
    padded = np.pad(samples, N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    power = np.square(np.abs(np.fft.rfft(frames * _WINDOW))).astype(np.float32)
    mel = power @ mel_filters(rate_hz).T.astype(np.float32)
    return np.asarray(10 * np.log10(np.maximum(mel, sys.float_info.epsilon)), np.float64)


def log_mel_of(path: str) -> Floats:
    """Of a recording, at 16 kHz."""
    return log_mel(read_audio(path, 16_000), 16_000)


@functools.cache
def mel_filters(rate_hz: int) -> Floats:
    """[128, 513] triangles of equal area, 0 to rate / 2; linear to 1 kHz, logarithmic above (Slaney)."""
    edges = _hz(np.linspace(0.0, _mel(rate_hz / 2), BANDS + 2))
    bins = np.fft.rfftfreq(N_FFT, 1 / rate_hz)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(triangles * (2 / (edges[2:] - edges[:-2]))[:, None])


def _mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + float(np.log(hz / 1000)) * 27 / float(np.log(6.4))


def _hz(mel: Floats) -> Floats:
    above = 1000 * np.exp(np.log(6.4) / 27 * (np.maximum(mel, 15) - 15))
    return np.where(mel < 15, mel * 200 / 3, above)
