"""What a drawn machine sounds like: the agent's simulated machine and faults, its body, its surroundings, its
microphone.

Physics in short: all turning parts follow the shaft; load slows a machine down and lets it radiate more high
frequencies; a stroke lets the sound swell; the body colours machine and fault alike, the surroundings add
noise that the body does not colour, the microphone colours everything. The gain of the recording wanders, so
loudness alone tells little.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from asd_agent import config
from asd_agent.capture.simulate import SimulatedMachine, fault_signal, mix_at
from asd_agent.types import Floats, Samples
from asd_train.synth.plan import Condition, Machine
from asd_train.synth.room import near_and_far

RATE_HZ = 16_000
SPEED_STEP = 1.12
FAULT_DB = (-22.0, -8.0)  # RMS of a fault over its machine's
# What differs from clip to clip without being a fault:
BODY_DB = 1.5  # the response of body and room, knot by knot
SITE_DB = 2.0  # the spectrum of the surroundings
SNR_DB = 2.0
EVENTS = 1.5  # foreign sounds in a clip, on average
_SHARED = {"leak": "hiss"}  # names here -> names of the agent's generators


def clip(machine: Machine, condition: Condition, fault: str | None, rng: np.random.Generator) -> Samples:
    """One recording [n], or [n, 2] of a near and a far microphone, full scale = 1: the machine in its surroundings,
    with a fault or without."""
    n = round(machine.seconds * RATE_HZ)
    sound = _machine(machine, condition, fault, n, rng)
    noise = _surroundings(machine.seed, condition.site, n, rng)
    gain = 10 ** (-(machine.snr_db + rng.normal(0, SNR_DB)) / 20) * _rms(sound) / _rms(noise)
    if machine.channels == 1:
        return _record(sound + gain * noise, condition, rng)
    return _record_pair(near_and_far(machine, sound, gain * noise, RATE_HZ), condition, rng)


def clean(machine: Machine, condition: Condition, rng: np.random.Generator) -> Samples:
    """The machine without its surroundings [n]."""
    return _record(_machine(machine, condition, None, round(machine.seconds * RATE_HZ), rng), condition, rng)


def noise(machine: Machine, condition: Condition, rng: np.random.Generator) -> Samples:
    """The surroundings without the machine [n]."""
    return _record(_surroundings(machine.seed, condition.site, round(machine.seconds * RATE_HZ), rng), condition, rng)


def _machine(machine: Machine, condition: Condition, fault: str | None, n: int, rng: np.random.Generator) -> Floats:
    """The machine and its fault through its body, RMS near 1. [n]"""
    shaft_hz = machine.shaft_hz * SPEED_STEP**condition.speed * (1 - 0.03 * condition.load) * rng.normal(1, 0.006)
    source = config.SimulatedSource(
        rate_hz=RATE_HZ,
        shaft_hz=float(shaft_hz),
        gear_teeth=machine.teeth,
        load_change=0.15,
        speed_change=0.004,
        level_dbfs=-24,
        seed=int(rng.integers(2**31)),
    )
    past = int(rng.integers(RATE_HZ))  # a recording starts at any angle of the shaft
    sound = SimulatedMachine(source).take(past + n)[past:]
    sound = sound / np.float32(_rms(sound))
    if machine.stroke_hz:
        sound = _stroke(sound, machine, condition, rng)
    if fault is not None:
        level_db = float(rng.uniform(*FAULT_DB))
        sound = mix_at(sound, _fault(fault, n, machine, float(shaft_hz), rng), level_db)
    body_db = _curve((machine.seed, 1), 5.0) + condition.load * 3.0 * _tilt() + _jitter(BODY_DB, rng)
    return _colour(sound.astype(np.float64), body_db)


def _stroke(sound: Samples, machine: Machine, condition: Condition, rng: np.random.Generator) -> Samples:
    """Swell with the stroke, and hit its end where the family does."""
    t = np.arange(len(sound)) / RATE_HZ
    turn = (t * machine.stroke_hz * SPEED_STEP**condition.speed + rng.random()) % 1.0
    swollen = sound * (0.55 + 0.45 * np.cos(2 * np.pi * turn))
    if machine.family.clacks:
        ring = np.exp(-turn / 0.02) * np.sin(2 * np.pi * 900 * turn / machine.stroke_hz)
        swollen = swollen + 4.0 * ring
    return np.asarray(swollen / _rms(swollen), np.float32)


def _fault(kind: str, n: int, machine: Machine, shaft_hz: float, rng: np.random.Generator) -> Samples:
    if kind == "gear":
        return _gear(n, shaft_hz * max(machine.teeth, 1), shaft_hz, rng)
    if kind == "rub":
        return _rub(n, shaft_hz, rng)
    return fault_signal(_SHARED.get(kind, kind), n, RATE_HZ, rng, shaft_hz)


def _gear(n: int, mesh_hz: float, shaft_hz: float, rng: np.random.Generator) -> Samples:
    """A damaged tooth: the mesh rings loudly once a turn, so sidebands around its harmonics. RMS 1. [n]"""
    t = np.arange(n) / RATE_HZ
    burst = np.exp(-((t * shaft_hz + rng.random()) % 1.0) / 0.08)
    mesh = sum(np.sin(2 * np.pi * h * mesh_hz * t + h) / h for h in (1, 2, 3) if h * mesh_hz < 0.45 * RATE_HZ)
    sound = burst * (mesh + 0.3 * rng.standard_normal(n))
    return np.asarray(sound / _rms(sound), np.float32)


def _rub(n: int, shaft_hz: float, rng: np.random.Generator) -> Samples:
    """Something grazes the rotor over a fifth of each turn: scraping noise between 1 and 5 kHz. RMS 1. [n]"""
    turn = (np.arange(n) * shaft_hz / RATE_HZ + rng.random()) % 1.0
    contact = np.where(turn < 0.2, np.sin(np.pi * turn / 0.2), 0.0) ** 2
    f = np.fft.rfftfreq(n, 1 / RATE_HZ)
    scrape = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * ((f > 1000) & (f < 5000)), n)
    sound = contact * scrape
    return np.asarray(sound / _rms(sound), np.float32)


def _surroundings(seed: int, site: str, n: int, rng: np.random.Generator) -> Floats:
    """A site's noise: pink, coloured, with mains hum, breathing slowly. [n]"""
    t = np.arange(n) / RATE_HZ
    key = (seed, 2, ord(site))
    breath = 1 + 0.25 * np.sin(2 * np.pi * (0.1 + 0.2 * rng.random()) * t + 2 * np.pi * rng.random())
    hum_hz = 50.0 * (1 + np.random.default_rng(key).integers(4))
    hum = 2.0 * np.sin(2 * np.pi * hum_hz * t + 2 * np.pi * rng.random())
    response_db = _curve(key, 6.0) - 1.5 * np.arange(len(_knots())) + _jitter(SITE_DB, rng)
    steady = _colour(breath * rng.standard_normal(n) + hum, response_db)
    return steady + _rms(steady) * _events(n, rng)


def _events(n: int, rng: np.random.Generator) -> Floats:
    """Foreign sounds at random times: something falls, something beeps. In units of the steady noise. [n]"""
    sound = np.zeros(n)
    for _ in range(int(rng.poisson(EVENTS))):
        length = round(rng.uniform(0.05, 0.8) * RATE_HZ)
        t = np.arange(length) / RATE_HZ
        beep = rng.random() < 0.5
        tone = np.sin(2 * np.pi * rng.uniform(200, 4000) * t) if beep else rng.standard_normal(length)
        start = int(rng.integers(n))
        event = 10 ** (rng.uniform(-6, 6) / 20) * tone * np.exp(-5 * t / t[-1])
        sound[start : start + length] += event[: n - start]
    return sound


def _record(sound: Floats, condition: Condition, rng: np.random.Generator) -> Samples:
    """Through the microphone, at a level of -26 dBFS give or take 1.5 dB. [n]"""
    heard = _colour(sound, _microphone(condition.microphone))
    level = 10 ** ((-26 + rng.normal(0, 1.5)) / 20)
    return np.clip(heard * (level / _rms(heard)), -1, 1).astype(np.float32)


def _record_pair(heard: Floats, condition: Condition, rng: np.random.Generator) -> Samples:
    """Near and far [n, 2] through microphones of one kind, at one gain: the near one at -26 dBFS give or take 1.5."""
    pair = np.stack([_colour(channel, _microphone(condition.microphone)) for channel in heard.T], axis=1)
    level = 10 ** ((-26 + rng.normal(0, 1.5)) / 20)
    return np.clip(pair * (level / _rms(pair[:, 0])), -1, 1).astype(np.float32)


def _microphone(number: int) -> Floats:
    """Response in dB at the knots: 1 is flat, every other one has its own resonance and roll-off."""
    if number == 1:
        return np.zeros(len(_knots()))
    rng = np.random.default_rng((99, number))
    octaves = np.log2(_knots())
    resonance = 6.0 * np.exp(-(((octaves - np.log2(rng.uniform(2500, 5000))) / 0.5) ** 2))
    return np.asarray(resonance - 8.0 * np.maximum(0, octaves - np.log2(5000)) - 4.0 * (octaves < np.log2(150)))


@functools.cache
def _knots() -> Floats:
    """Half octaves from 40 Hz to 8 kHz, where responses are drawn."""
    return np.asarray(40 * 2 ** (np.arange(17) / 2 * np.log2(200) / 8))


def _tilt() -> Floats:
    """-1 at the lowest knot, 1 at the highest."""
    return np.linspace(-1, 1, len(_knots()))


def _curve(key: tuple[int, ...], spread_db: float) -> Floats:
    """A drawn response in dB at the knots, always the same for a key."""
    return np.random.default_rng(key).normal(0, spread_db, len(_knots()))


def _jitter(spread_db: float, rng: np.random.Generator) -> Floats:
    return rng.normal(0, spread_db, len(_knots()))


def _colour(sound: Floats, gains_db: Floats) -> Floats:
    """Filter [n] by a response given at the knots, straight in dB over octaves between them."""
    f = np.fft.rfftfreq(len(sound), 1 / RATE_HZ)
    gain_db = np.interp(np.log2(np.maximum(f, 1.0)), np.log2(_knots()), gains_db)
    return np.asarray(np.fft.irfft(np.fft.rfft(sound) * 10 ** (gain_db / 20), len(sound)))


def _rms(x: npt.NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
