"""Everyday sound, computed: of music and alarms no recording is at hand whose licence is beyond doubt, of the rest only
some minutes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asd_agent.types import Floats, Samples
from asd_train.distil import nature
from asd_train.distil.faults import RATE_HZ, band_noise
from asd_train.distil.recipe import Family

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))


def everyday(family: Family, n: int, rng: np.random.Generator) -> Samples:
    """`n` samples of a family at 16 kHz, RMS 1."""
    return _unit(_COMPUTED[family](n, rng))


def _music(n: int, rng: np.random.Generator) -> Floats:
    """A tune over chords and drums, as a loudspeaker or a small radio plays it. [n]"""
    beat_s, root = 60 / rng.uniform(70, 150), rng.uniform(40, 55)  # a MIDI note
    scale = rng.choice(len(_SCALES))
    timbre = 1 / np.arange(1, 9) ** rng.uniform(0.5, 2.5)
    sound = np.zeros(n)
    for beat in range(int(n / RATE_HZ / beat_s) + 1):
        at = round(beat * beat_s * RATE_HZ)
        if beat % 4 == 0:
            chord = [_note(root, scale, step + int(rng.integers(0, 5))) for step in (0, 2, 4)]
        for hz in chord:
            _put(sound, at, 0.5 * _tone(hz, 1.2 * beat_s, timbre, rng))
        for part in range(int(rng.integers(1, 4))):
            hz = _note(root + 24, scale, int(rng.integers(0, 8)))
            _put(sound, at + round(part * beat_s / 3 * RATE_HZ), _tone(hz, beat_s * rng.uniform(0.3, 1), timbre, rng))
        if beat % 2 == 0 and rng.random() < 0.7:
            _put(sound, at, 2 * _drum(rng))
    if rng.random() < 0.4:  # a small radio
        f = np.fft.rfftfreq(n, 1 / RATE_HZ)
        sound = np.fft.irfft(np.fft.rfft(sound) * ((f > 250) & (f < 4500)), n)
    return sound


def _alarm(n: int, rng: np.random.Generator) -> Floats:
    """Beeps, a siren, a bell or a telephone. [n]"""
    t = np.arange(n) / RATE_HZ
    kind = rng.integers(4)
    if kind == 0:  # beeps
        hz, rate_hz, share = rng.uniform(600, 4000), rng.uniform(0.7, 5), rng.uniform(0.2, 0.7)
        sound = _rich(2 * np.pi * hz * t, rng) * ((t * rate_hz + rng.random()) % 1.0 < share)
    elif kind == 1:  # a siren: two pitches by turns, or a sweep
        low_hz, rate_hz = rng.uniform(400, 1200), rng.uniform(0.3, 4)
        turn = (t * rate_hz + rng.random()) % 1.0
        rise = (turn > 0.5) * 1.0 if rng.random() < 0.5 else np.abs(2 * turn - 1)
        sound = _rich(2 * np.pi * np.cumsum(low_hz * (1 + rng.uniform(0.2, 1) * rise)) / RATE_HZ, rng)
    else:  # a bell struck now and then, or a telephone's, struck 20 times a second
        hz = rng.uniform(350, 2200)
        period_s = rng.uniform(0.6, 2) if kind == 2 else 1 / rng.uniform(15, 25)
        sound = np.zeros(n)
        strike = _bell(hz, rng)
        for at in np.arange(0, n / RATE_HZ, period_s):
            if kind == 2 or at % 3 < 1.6:
                _put(sound, round(at * RATE_HZ), strike)
    return sound + 1e-4 * rng.standard_normal(n)


def _note(root: float, scale: int, step: int) -> float:
    """Hz of a step of the scale."""
    steps = _SCALES[scale]
    return float(440 * 2 ** ((root + steps[step % len(steps)] + 12 * (step // len(steps)) - 69) / 12))


def _tone(hz: float, seconds: float, timbre: Floats, rng: np.random.Generator) -> Floats:
    t = np.arange(max(1, round(seconds * RATE_HZ))) / RATE_HZ
    phase = 2 * np.pi * hz * t + rng.uniform(0, 0.3) * np.sin(2 * np.pi * 5.5 * t)
    partials = sum(a * np.sin(k * phase) for k, a in enumerate(timbre, 1) if k * hz < 7500)
    return np.asarray(partials * np.minimum(t / 0.01, 1) * np.exp(-t / (seconds * rng.uniform(0.3, 2))))


def _drum(rng: np.random.Generator) -> Floats:
    n = round(0.2 * RATE_HZ)
    t = np.arange(n) / RATE_HZ
    if rng.random() < 0.5:
        return np.asarray(np.sin(2 * np.pi * (50 * t + 4 * (1 - np.exp(-t / 0.03)))) * np.exp(-t / 0.08))
    return np.asarray(band_noise(n, 1000, 7500, rng) * np.exp(-t / rng.uniform(0.02, 0.08)))


def _rich(phase: Floats, rng: np.random.Generator) -> Floats:
    """A tone with harmonics, as a piezo or a horn has. [n]"""
    return np.asarray(sum(rng.uniform(0, 1) / k * np.sin(k * phase) for k in (2, 3)) + np.sin(phase))


def _bell(hz: float, rng: np.random.Generator) -> Floats:
    t = np.arange(round(1.5 * RATE_HZ)) / RATE_HZ
    ratios = np.array([0.5, 1, 1.19, 1.5, 2, 2.74, 3.76]) * (1 + 0.02 * rng.standard_normal(7))
    partials = [
        rng.uniform(0.2, 1) * np.exp(-t * r / rng.uniform(0.3, 1.5)) * np.sin(2 * np.pi * r * hz * t)
        for r in ratios
        if r * hz < 7500
    ]
    return np.asarray(np.sum(partials, axis=0))


def _put(sound: Floats, at: int, part: Floats) -> None:
    if 0 <= at < len(sound):
        sound[at : at + len(part)] += part[: len(sound) - at]


def _unit(sound: Floats) -> Samples:
    return np.asarray(sound / max(float(np.sqrt(np.mean(sound**2))), 1e-9), np.float32)


_COMPUTED: dict[Family, Callable[[int, np.random.Generator], Floats]] = {
    "voices_and_animals": nature.voice,
    "music": _music,
    "weather": nature.weather,
    "traffic": nature.traffic,
    "tools_and_impacts": nature.tools,
    "alarms": _alarm,
}
