"""Voices, weather, traffic and tools, computed: what recordings of some dozen minutes lack in variety.

A voice is additive: harmonics of a gliding pitch, weighed by the resonances of a throat that moves from vowel to vowel
(formant synthesis, after Klatt 1980), with hisses and pauses between. Calls of animals are the same without words.
"""

from __future__ import annotations

import numpy as np

from asd_agent.types import Floats
from asd_train.distil.faults import RATE_HZ, band_noise, hits

# Formants of vowels in Hz, a man's (Peterson and Barney 1952).
_VOWELS = np.array(
    [
        (270, 2290, 3010), (390, 1990, 2550), (530, 1840, 2480), (660, 1720, 2410), (730, 1090, 2440),
        (570, 840, 2410), (440, 1020, 2240), (300, 870, 2240), (640, 1190, 2390), (490, 1350, 1690),
    ]
)  # fmt: skip
# Shortest and longest in s, lowest and highest pitch in Hz, share of noise: barks, cries, crowing, chirps.
_CALLS = (
    (0.08, 0.3, 200.0, 900.0, 0.6),
    (0.4, 1.5, 250.0, 700.0, 0.15),
    (0.5, 2.0, 400.0, 1400.0, 0.1),
    (0.04, 0.25, 1800.0, 6000.0, 0.02),
)
_WIDTHS_HZ = np.array([80.0, 110.0, 170.0])
_GRID = 160  # samples between two points of pitch and formants
_TOP_HZ = 7600.0


def voice(n: int, rng: np.random.Generator) -> Floats:
    """Speech of nobody, or calls of an animal. [n]"""
    return _speech(n, rng) if rng.random() < 0.5 else _calls(n, rng)


def weather(n: int, rng: np.random.Generator) -> Floats:
    """Rain on something, or wind in gusts. [n]"""
    gusts = np.exp(rng.uniform(0.2, 0.9) * _wander(n, rng.uniform(0.3, 3), rng))
    if rng.random() < 0.5:
        low_hz = 2 ** rng.uniform(np.log2(40), np.log2(300))
        wind = band_noise(n, low_hz, low_hz * rng.uniform(3, 12), rng) * gusts
        return np.asarray(wind + rng.uniform(0, 0.3) * band_noise(n, 400, 4000, rng) * gusts**2)
    drops = np.zeros(n)
    count = int(2 ** rng.uniform(5, 9.5) * n / RATE_HZ)
    np.add.at(drops, rng.integers(0, n, count), rng.standard_normal(count) * 10 ** (rng.uniform(-20, 0, count) / 20))
    t = np.arange(round(0.03 * RATE_HZ)) / RATE_HZ
    splash = np.exp(-t / 2 ** rng.uniform(-10, -7)) * rng.standard_normal(len(t))
    low_hz = 2 ** rng.uniform(np.log2(300), np.log2(1500))
    haze = band_noise(n, low_hz, min(low_hz * rng.uniform(4, 20), _TOP_HZ), rng)
    rain = np.convolve(drops, splash)[:n]
    return np.asarray(_level(rain) + rng.uniform(0.1, 1.5) * _level(haze) * gusts**0.5)


def traffic(n: int, rng: np.random.Generator) -> Floats:
    """Vehicles that come and go: tyres, and an engine whose pitch falls as it passes. [n]"""
    t, sound = np.arange(n) / RATE_HZ, 1e-3 * rng.standard_normal(n)
    for _ in range(int(rng.integers(1, 4))):
        turn = (t - rng.uniform(0, n / RATE_HZ)) / 2 ** rng.uniform(-1, 1.5)
        near = 1 / (1 + turn**2)
        low_hz = 2 ** rng.uniform(np.log2(60), np.log2(500))
        tyres = band_noise(n, low_hz, low_hz * rng.uniform(3, 10), rng)
        rise = 1 + 0.15 * _wander(n, 0.4, rng) - 0.06 * np.tanh(turn)
        phase = 2 * np.pi * np.cumsum(2 ** rng.uniform(np.log2(25), np.log2(120)) * rise) / RATE_HZ
        engine = sum(rng.uniform(0, 1) / k**0.7 * np.sin(k * phase + rng.uniform(0, 6)) for k in range(1, 16))
        sound += 10 ** (rng.uniform(-12, 0) / 20) * near * (tyres / tyres.std() + rng.uniform(0, 1.2) * engine)
    return np.asarray(sound)


def tools(n: int, rng: np.random.Generator) -> Floats:
    """A tool with a motor that is switched on and off under changing load, or a person who hammers, types or walks: no
    two hits are alike, and no rhythm is kept. [n]"""
    t = np.arange(n) / RATE_HZ
    if rng.random() < 0.5:
        on = np.convolve(_wander(n, rng.uniform(0.3, 1.5), rng) > rng.uniform(-1, 0.5), np.full(1600, 1 / 1600))[:n]
        hz = 2 ** rng.uniform(np.log2(60), np.log2(400)) * (0.3 + 0.7 * on) * (1 + 0.12 * _wander(n, 2.0, rng))
        phase = 2 * np.pi * np.cumsum(hz) / RATE_HZ
        motor = sum(rng.uniform(0, 1) / k**0.4 * np.sin(k * phase + rng.uniform(0, 6)) for k in range(1, 18))
        work = band_noise(n, 500, _TOP_HZ, rng) * np.exp(0.5 * _wander(n, 4.0, rng))
        return np.asarray(on * (motor + rng.uniform(0, 4) * work / work.std()) + 1e-3 * rng.standard_normal(n))
    period_s = 2 ** rng.uniform(-3, 0.3)
    times = np.cumsum(period_s * rng.lognormal(0, rng.uniform(0.2, 0.6), int(n / RATE_HZ / period_s * 2) + 2))
    sound = 1e-3 * rng.standard_normal(n)
    for at in times[times < t[-1]]:
        begin = round(at * RATE_HZ)
        hit = hits(min(round(0.25 * RATE_HZ), n - begin), np.zeros(1), rng)
        sound[begin : begin + len(hit)] += hit / max(np.abs(hit).max(), 1e-9) * 10 ** (rng.uniform(-15, 0) / 20)
    return sound


def _speech(n: int, rng: np.random.Generator) -> Floats:
    """One to three speakers, each in syllables of a hiss or none and a vowel or two."""
    sound = np.zeros(n)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        sound += 10 ** (rng.uniform(-10, 0) / 20) * _level(_speaker(n, rng))
    return sound


def _speaker(n: int, rng: np.random.Generator) -> Floats:
    points = n // _GRID + 2
    usual_hz, throat = 2 ** rng.uniform(np.log2(85), np.log2(300)), rng.uniform(0.95, 1.3)
    pace_s = rng.uniform(0.12, 0.3)
    strength, hiss = np.zeros(points), np.zeros(n)
    formants = np.tile(throat * _VOWELS[0].astype(float), (points, 1))
    pitch = usual_hz * 2 ** (0.15 * _wander(points, 2.0, rng, 100.0))
    at = rng.uniform(0, 0.5)
    while at < n / RATE_HZ:
        if rng.random() < 0.5:
            length = round(rng.uniform(0.02, 0.12) * RATE_HZ)
            begin, low_hz = round(at * RATE_HZ), rng.uniform(800, 4500)
            burst = band_noise(length, low_hz, _TOP_HZ, rng) * np.hanning(length)
            hiss[begin : begin + length] += rng.uniform(0.02, 0.4) * _level(burst)[: max(0, n - begin)]
            at += 0.7 * length / RATE_HZ
        length_s = pace_s * rng.uniform(0.5, 1.6)
        place = slice(round(at * 100), min(round((at + length_s) * 100), points))
        count = place.stop - place.start
        if count > 1:
            begin_hz, end_hz = throat * _VOWELS[rng.integers(len(_VOWELS), size=2)]
            turn = np.linspace(0, 1, count)[:, None]
            formants[place] = begin_hz * (1 - turn) + end_hz * turn
            strength[place] = rng.uniform(0.4, 1) * np.sin(np.pi * np.linspace(0.05, 0.95, count)) ** 0.5
            pitch[place] *= np.linspace(1.08, 0.93, count)
        at += length_s + (rng.exponential(0.4) if rng.random() < 0.2 else rng.uniform(0, 0.06))
    return _level(_phonation(n, pitch, formants, strength, rng)) + hiss


def _calls(n: int, rng: np.random.Generator) -> Floats:
    """Barks, cries, crowing, chirps: one kind of call, again and again."""
    points = n // _GRID + 2
    low_s, high_s, low_hz, high_hz, rough = _CALLS[int(rng.integers(len(_CALLS)))]
    usual_s, usual_hz = rng.uniform(low_s, high_s), 2 ** rng.uniform(np.log2(low_hz), np.log2(high_hz))
    strength, pitch = np.zeros(points), np.full(points, usual_hz)
    bend, arch = rng.normal(0, 0.3), rng.normal(0.25, 0.25)
    at = rng.uniform(0, 1)
    while at < n / RATE_HZ:
        length_s = usual_s * rng.uniform(0.7, 1.3)
        place = slice(round(at * 100), min(round((at + length_s) * 100), points))
        turn = np.linspace(0, 1, max(place.stop - place.start, 1))[: place.stop - place.start]
        octaves = bend * (turn - 0.5) + arch * np.sin(np.pi * turn) + rng.normal(0, 0.05)
        pitch[place] = usual_hz * 2**octaves
        strength[place] = rng.uniform(0.4, 1) * np.sin(np.pi * np.clip(turn, 0.03, 0.97)) ** 0.4
        at += length_s + rng.uniform(0.03, 0.3) + (rng.exponential(1.0) if rng.random() < 0.3 else 0)
    formants = np.tile(rng.uniform(0.8, 2.0) * _VOWELS[rng.integers(len(_VOWELS))], (points, 1))
    clear = _level(_phonation(n, pitch, formants, strength, rng))
    loud = np.interp(np.arange(n), _GRID * np.arange(points), strength)
    strength_of_breath = rough * rng.uniform(0, 2)
    breath = band_noise(n, min(2 * usual_hz, 3000.0), _TOP_HZ, rng) * loud
    return np.asarray(clear + strength_of_breath * _level(breath))


def _phonation(n: int, pitch_hz: Floats, formants_hz: Floats, strength: Floats, rng: np.random.Generator) -> Floats:
    """Harmonics of a pitch [points] through resonances [points, 3]. [n]"""
    at, grid = np.arange(n), _GRID * np.arange(len(pitch_hz))
    hz = np.interp(at, grid, pitch_hz * (1 + 0.01 * rng.standard_normal(len(pitch_hz))))
    phase = 2 * np.pi * np.cumsum(hz) / RATE_HZ
    tilt = rng.uniform(0.3, 1.2)
    sound = np.zeros(n)
    for k in range(1, int(min(_TOP_HZ / pitch_hz.min(), 40)) + 1):
        away = (k * pitch_hz[:, None] - formants_hz) / _WIDTHS_HZ
        gain = (1 / (1 + away**2) * (1, 0.6, 0.3)).sum(axis=1) + 0.01
        gain = strength * gain / k**tilt * (k * pitch_hz < _TOP_HZ)
        sound += np.interp(at, grid, gain) * np.sin(k * phase)
    return sound


def _wander(n: int, hz: float, rng: np.random.Generator, rate_hz: float = RATE_HZ) -> Floats:
    """A smooth random walk around 0 with deviation 1, up to `hz`. [n]"""
    knots = rng.standard_normal(max(4, int(n / rate_hz * 2 * hz) + 4))
    smooth = np.interp(np.linspace(0, len(knots) - 1, n), np.arange(len(knots)), knots)
    return np.asarray(smooth / max(float(smooth.std()), 0.3))


def _level(sound: Floats) -> Floats:
    return np.asarray(sound / max(float(np.sqrt(np.mean(sound**2))), 1e-9))
