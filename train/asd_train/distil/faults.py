"""What breaks in a machine, as sound: the agent's generators, and further ones with everything drawn at random.

They are the counter-examples of every family of everyday sound: a loose part ticks, a belt sings, a leak is rain.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asd_agent.capture.simulate import fault_signal
from asd_agent.types import Floats, Samples

RATE_HZ, FRAME, HOP = 16_000, 1024, 256
SHAFT_HZ = (8.0, 60.0)


def fault(kind: str, n: int, rng: np.random.Generator) -> Samples:
    """`n` samples at 16 kHz, RMS 1."""
    own = _OWN.get(kind)
    if own is None:
        return fault_signal(kind, n, RATE_HZ, rng, float(rng.uniform(*SHAFT_HZ)))
    sound = own(n, rng)
    return np.asarray(sound / max(float(np.sqrt(np.mean(sound**2))), 1e-9), np.float32)


def swell(depth: float, rng: np.random.Generator) -> Samples:
    """The power of a machine that swells and fades 3 to 40 times a second, in the student's frames of 1 s. [frames]

    depth: RMS of the modulation. What is faster than a frame is averaged over it, as its spectrum does.
    """
    turn = 2 * np.pi * (rng.uniform(3, 40) * np.arange(RATE_HZ) / RATE_HZ + rng.random())
    power = (1 + np.sqrt(2) * depth * np.sin(turn)) ** 2
    window = np.hanning(FRAME + 1)[:-1] ** 2
    frames = np.lib.stride_tricks.sliding_window_view(power, FRAME)[::HOP]
    return np.asarray(frames @ window / window.sum(), np.float32)


def hits(n: int, times_s: Floats, rng: np.random.Generator) -> Floats:
    """Decaying resonances at these times, all of the same body, amplitudes within 4 dB. [n]"""
    length = round(0.12 * RATE_HZ)
    t = np.arange(length) / RATE_HZ
    body = np.zeros(length)
    for _ in range(int(rng.integers(1, 5))):
        hz, decay_s = 2 ** rng.uniform(np.log2(150), np.log2(7000)), 2 ** rng.uniform(-11, -6)
        body += rng.uniform(0.3, 1) * np.exp(-t / decay_s) * np.sin(2 * np.pi * (hz * t + rng.random()))
    places = np.round(times_s * RATE_HZ).astype(int)
    places = places[(places >= 0) & (places < n)]
    train = np.zeros(n)
    train[places] = 10 ** (rng.uniform(-4, 0, len(places)) / 20)
    size = 1 << (n + length).bit_length()
    return np.asarray(np.fft.irfft(np.fft.rfft(train, size) * np.fft.rfft(body, size), size)[:n])


def band_noise(n: int, low_hz: float, high_hz: float, rng: np.random.Generator) -> Floats:
    """Noise between two frequencies, falling off within a third of an octave. [n]"""
    octaves = np.log2(np.maximum(np.fft.rfftfreq(n, 1 / RATE_HZ), 1.0))
    outside = np.maximum(np.log2(low_hz) - octaves, octaves - np.log2(high_hz))
    return np.asarray(np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * 10 ** (-3 * np.maximum(outside, 0)), n))


def _impacts(n: int, rng: np.random.Generator) -> Floats:
    """At the rates of bearings and gears, with slip."""
    rate_hz = 2 ** rng.uniform(1.5, 7)
    steps = (1 + rng.uniform(0, 0.1) * rng.standard_normal(int(rate_hz * n / RATE_HZ) + 2)) / rate_hz
    return hits(n, np.cumsum(steps), rng)


def _ticks(n: int, rng: np.random.Generator) -> Floats:
    """A loose part once or twice a turn of something slow."""
    period_s = rng.uniform(0.15, 1.0)
    times = period_s * (np.arange(int(n / RATE_HZ / period_s) + 2) + rng.random())
    return hits(n, times + 0.01 * period_s * rng.standard_normal(len(times)), rng)


def _rattle(n: int, rng: np.random.Generator) -> Floats:
    """Bursts of hits at random."""
    starts = rng.uniform(0, n / RATE_HZ, max(1, rng.poisson(2 * n / RATE_HZ)))
    return hits(n, np.concatenate([s + np.cumsum(rng.exponential(0.02, rng.integers(2, 9))) for s in starts]), rng)


def _leak(n: int, rng: np.random.Generator) -> Floats:
    """Hiss in any band, steady or puffing."""
    low_hz = 2 ** rng.uniform(np.log2(400), np.log2(5000))
    noise = band_noise(n, low_hz, min(low_hz * 2 ** rng.uniform(0.5, 3), 7800), rng)
    return noise * _swell(n, rng)


def _whine(n: int, rng: np.random.Generator) -> Floats:
    """A tone with harmonics whose pitch and level follow a turning part."""
    turn = 2 * np.pi * rng.uniform(0.5, 30) * np.arange(n) / RATE_HZ
    hz = 2 ** rng.uniform(np.log2(250), np.log2(5000))
    phase = 2 * np.pi * hz * np.arange(n) / RATE_HZ + rng.uniform(0, 8) * np.sin(turn)
    tones = [rng.uniform(0, 1 / k) * np.sin(k * phase) for k in range(1, 5) if k * hz < 7500]
    return np.asarray(np.sum(tones, axis=0) * _swell(n, rng) + 1e-3 * rng.standard_normal(n))


def _hum(n: int, rng: np.random.Generator) -> Floats:
    """Harmonics of the mains or of a turn."""
    hz, t = rng.choice((50.0, 60.0, 100.0, 120.0, rng.uniform(20, 200))), np.arange(n) / RATE_HZ
    orders = range(1, int(rng.integers(2, 12)))
    return np.asarray(sum(rng.uniform(0, 1) * np.sin(2 * np.pi * (k * hz * t + rng.random())) for k in orders))


def _rub(n: int, rng: np.random.Generator) -> Floats:
    """Scraping over a part of each turn."""
    turn = (np.arange(n) * 2 ** rng.uniform(0, 5.5) / RATE_HZ + rng.random()) % 1.0
    share = rng.uniform(0.1, 0.5)
    contact = np.where(turn < share, np.sin(np.pi * np.minimum(turn / share, 1)), 0.0) ** 2
    low_hz = rng.uniform(300, 3000)
    return contact * band_noise(n, low_hz, min(low_hz * rng.uniform(2, 6), 7800), rng)


def _swell(n: int, rng: np.random.Generator) -> Floats:
    """An envelope that is flat in half of the cases, and else follows a turn. [n]"""
    depth = rng.uniform(0, 0.9) * (rng.random() < 0.5)
    return np.asarray(1 + depth * np.sin(2 * np.pi * (rng.uniform(1, 30) * np.arange(n) / RATE_HZ + rng.random())))


_OWN: dict[str, Callable[[int, np.random.Generator], Floats]] = {
    "impacts": _impacts,
    "ticks": _ticks,
    "rattle": _rattle,
    "leak": _leak,
    "whine": _whine,
    "hum": _hum,
    "rub": _rub,
}
ADDED = ("bearing", "imbalance", "squeal", "hiss", "knocks", *_OWN)
KINDS = (*ADDED, "modulation")
