"""A motor-driven machine that never was, and faults to inject into real ones.

All sounds are functions of the shaft's revolutions, so they follow its speed and go on without a seam from
block to block. Faults have an RMS of 1 and are set in relation to the machine, in dB. The seed determines
everything. Cost: 0.4 % of one core at 16 kHz, 1 % at 48 kHz.

Kinds of faults:
    bearing     decaying resonances at 3.58 per revolution (outer race of a 6205), with 1 % slip
    imbalance   the rotation itself (1x) and a little of its second harmonic
    squeal      a belt: a modulated tone near 1.8 kHz with harmonics
    hiss        a leak: noise from 2 kHz up to 20 kHz, or 0.44 of the sampling rate where that is less
    knocks      single hard impacts, about 1.4 a second at random
Faults of one component, and sounds that only resemble them: component_faults.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from asd_agent import config
from asd_agent.capture.component_faults import COMPONENT_FAULTS, ComponentFault, bearing_response
from asd_agent.capture.filters import Convolver, FilteredNoise, band_response, ringing, rms
from asd_agent.types import Block, Floats, Samples

FAULTS = ("bearing", "imbalance", "squeal", "hiss", "knocks")
BLOCK_S = 0.25
BEARING_ORDER = 3.5848  # outer-race passes of a 6205 per revolution
SLIP = 0.01
KNOCK_PAUSE_S = (0.25, 0.45)  # least, and mean of the exponential rest
TABLE = 16_384  # points of one revolution
FADE_S = 0.1  # a fault comes and goes without a click


def fault_signal(kind: str, n: int, rate_hz: int, rng: np.random.Generator, shaft_hz: float = 24.9) -> Samples:
    """`n` samples of a fault at constant speed, RMS 1. Raises ValueError for an unknown kind."""
    source = config.SimulatedSource(rate_hz=rate_hz, shaft_hz=shaft_hz)
    t = np.arange(1.0, n + 1) / rate_hz
    signal = _signal(kind, source, rng).take(shaft_hz * t, t)
    return np.asarray(signal / max(rms(signal), 1e-12), np.float32)


def mix_at(machine: Samples, fault: Samples, level_db: float) -> Samples:
    """`machine` + `fault` [n], the fault's RMS `level_db` above the machine's (negative: below).

    Raises ValueError when one of them is silent.
    """
    machine_rms, fault_rms = rms(machine - machine.mean()), rms(fault)
    if machine_rms == 0 or fault_rms == 0:
        raise ValueError("a level in relation to the machine needs a machine and a fault that are not silent")
    gain = 10 ** (level_db / 20) * machine_rms / fault_rms
    return np.asarray(machine + np.float32(gain) * fault, np.float32)


def machine_blocks(source: config.SimulatedSource) -> Iterator[Block]:
    """The simulated machine as blocks of 0.25 s, mono, for `duration_s` or for ever."""
    machine = SimulatedMachine(source)
    size = round(BLOCK_S * source.rate_hz)
    end = None if source.duration_s is None else round(source.duration_s * source.rate_hz)
    start, utc_s = 0, time.time()
    while end is None or start < end:
        n = size if end is None else min(size, end - start)
        yield Block(
            samples=machine.take(n)[:, None],
            rate_hz=source.rate_hz,
            start_frame=start,
            utc_s=utc_s + start / source.rate_hz,
            monotonic_s=time.monotonic(),
            last=start + n == end,
        )
        start += n


class SimulatedMachine:
    """Rotation and gear mesh from tables of one revolution, flow noise, slow changes of load and speed."""

    def __init__(self, source: config.SimulatedSource) -> None:
        rngs = np.random.default_rng(source.seed).spawn(3 + len(source.faults))
        self._source = source
        self._frame = 0
        self._load, self._speed = _Drift(rngs[0]), _Drift(rngs[1])
        self._rotation = _Revolution(_rotation_lines(), source)
        self._mesh = _Revolution(_mesh_lines(source.gear_teeth), source)
        self._flow = FilteredNoise(_flow_response(source.rate_hz), rngs[2])
        powers = (0.25 * self._rotation.power, 0.25 * self._mesh.power, 0.49 * 1.02)
        self._unit = 1 / np.sqrt(sum(powers))  # the machine alone has an RMS of 1
        self._faults = [
            (fault, _signal(fault.kind, source, rng)) for fault, rng in zip(source.faults, rngs[3:], strict=True)
        ]

    def take(self, n: int) -> Samples:
        """The next `n` samples, clipped at full scale as a converter would. [n]"""
        source = self._source
        t = (self._frame + np.arange(n)) / source.rate_hz
        self._frame += n
        revs = source.shaft_hz * (t + source.speed_change * self._speed.integral(t))
        load = 1 + source.load_change * self._load(t)
        angle = revs % 1.0
        flow = self._flow.take(n) * (1 + 0.2 * np.sin(2 * np.pi * angle))
        sound = 0.5 * self._rotation(angle)
        sound += load * (0.5 * self._mesh(angle) + 0.7 * flow)
        sound *= self._unit
        for fault, signal in self._faults:
            gate = _gate(t, fault)
            if gate.any():
                sound += gate * 10 ** (fault.level_db / 20) * signal.take(revs, t)
            else:
                signal.skip(revs)
        return np.clip(10 ** (source.level_dbfs / 20) * sound, -1, 1).astype(np.float32)


def _signal(kind: str, source: config.SimulatedSource, rng: np.random.Generator) -> _Fault | ComponentFault:
    if kind in COMPONENT_FAULTS:
        return ComponentFault(kind, source, rng)
    return _Fault(kind, source.rate_hz, source.shaft_hz, rng)


class _Fault:
    """One fault as a stream over revolutions, expected RMS 1."""

    def __init__(self, kind: str, rate_hz: int, shaft_hz: float, rng: np.random.Generator) -> None:
        if kind not in FAULTS:
            raise ValueError(f"unknown fault {kind!r}: one of {', '.join((*FAULTS, *COMPONENT_FAULTS))}")
        self._kind, self._rate_hz, self._shaft_hz, self._rng = kind, rate_hz, shaft_hz, rng
        self._noise = self._hits = None
        if kind == "hiss":
            self._noise = FilteredNoise(band_response(rate_hz, 2000 / rate_hz, min(0.44, 20_000 / rate_hz)), rng)
        elif kind in ("bearing", "knocks"):
            response = bearing_response(rate_hz) if kind == "bearing" else _knock_response(rate_hz)
            self._hits = Convolver(response)
            self._next = rng.uniform(0, 1 / BEARING_ORDER if kind == "bearing" else 0.2 * shaft_hz)
            pause = shaft_hz * sum(KNOCK_PAUSE_S) if kind == "knocks" else 1 / BEARING_ORDER
            per_sample = shaft_hz / rate_hz / pause
            self._gain = 1 / np.sqrt(per_sample * 1.04 * np.sum(response**2))  # amplitudes: 1 +- 0.2

    def take(self, revs: Floats, _: Floats) -> Floats:
        """[n] for the shaft's revolutions [n] at each sample, rising from block to block."""
        if self._noise is not None:
            return self._noise.take(len(revs))
        if self._hits is not None:
            return np.asarray(self._gain * self._hits.take(self._impacts(revs)))
        turn = 2 * np.pi * revs
        if self._kind == "imbalance":
            return np.asarray(np.sqrt(2 / 1.01) * (np.sin(turn) + 0.1 * np.sin(2 * turn)))
        return self._squeal(turn)

    def skip(self, revs: Floats) -> None:
        """Let the time pass while the fault is switched off."""
        if self._hits is not None:
            self._next = max(self._next, float(revs[-1]))

    def _squeal(self, turn: Floats) -> Floats:
        """Frequency and amplitude wander with the belt, which turns 0.37 times per revolution."""
        order = min(1800.0, 0.11 * self._rate_hz) / self._shaft_hz
        phase = order * turn + 12 * np.sin(0.37 * turn)
        tone = np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)
        return np.asarray((1 + 0.5 * np.sin(0.74 * turn)) * tone * np.sqrt(2 / (1.2 * 1.125)))

    def _impacts(self, revs: Floats) -> Floats:
        """Amplitudes at the samples that are hit, else 0. [n]"""
        hits = np.zeros(len(revs))
        while self._next <= revs[-1]:
            hits[np.searchsorted(revs, self._next)] += self._rng.choice((0.8, 1.2))
            if self._kind == "bearing":
                self._next += (1 + SLIP * self._rng.standard_normal()) / BEARING_ORDER
            else:
                least, rest = KNOCK_PAUSE_S
                self._next += self._shaft_hz * (least + self._rng.exponential(rest))
        return hits


class _Drift:
    """A slow wander between -1 and 1: three sines of unrelated periods (20 to 150 s)."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._omega = 2 * np.pi / rng.uniform((20, 40, 80), (40, 80, 150))
        self._phase = rng.uniform(0, 2 * np.pi, 3)

    def __call__(self, t: Floats) -> Floats:
        return np.asarray(np.sin(np.multiply.outer(t, self._omega) + self._phase).mean(axis=1))

    def integral(self, t: Floats) -> Floats:
        """Over time from 0, in seconds."""
        waves = np.cos(self._phase) - np.cos(np.multiply.outer(t, self._omega) + self._phase)
        return np.asarray((waves / self._omega).mean(axis=1))


class _Revolution:
    """The sound of turning parts as a table of one revolution, RMS 1."""

    def __init__(self, lines: list[tuple[int, float]], source: config.SimulatedSource) -> None:
        highest = 0.45 * source.rate_hz / source.shaft_hz
        angle = 2 * np.pi * np.arange(TABLE) / TABLE
        self._points = np.zeros(TABLE)
        for order, amplitude in lines:
            if order <= highest:  # phases by Schroeder's rule: no spike where all crests meet
                self._points += amplitude * np.sin(order * angle + np.pi * order**2 / len(lines))
        self._points /= max(rms(self._points), 1e-12)
        self.power = float(np.mean(self._points**2))  # 0 when no line is below the top of the band
        self._slopes = np.roll(self._points, -1) - self._points

    def __call__(self, angle: Floats) -> Floats:
        """At fractions of a revolution, 0 <= angle < 1. [n]"""
        position = angle * TABLE
        index = position.astype(np.int32)
        return np.asarray(self._points[index] + (position - index) * self._slopes[index])


def _rotation_lines() -> list[tuple[int, float]]:
    return [(order, 1 / order) for order in range(1, 9)]


def _mesh_lines(teeth: int) -> list[tuple[int, float]]:
    """Tooth passing and its second harmonic, with sidebands one revolution away."""
    if not teeth:
        return []
    return [
        (harmonic * teeth + side, (1.0 if harmonic == 1 else 0.4) * (1.0 if side == 0 else 0.25))
        for harmonic in (1, 2)
        for side in (-1, 0, 1)
    ]


def _flow_response(rate_hz: int) -> Floats:
    """Turbulence: flat up to 300 Hz, then falling by about 5 dB an octave. [1025 taps at most]"""
    taps = 1024 if rate_hz > 24_000 else 512
    f = np.fft.rfftfreq(taps, 1 / rate_hz)
    gain = (f > 20) / (1 + (f / 300) ** 1.7) ** 0.5
    return np.asarray(np.roll(np.fft.irfft(gain), taps // 2) * np.hanning(taps))


def _knock_response(rate_hz: int) -> Floats:
    """Something loose: a heavy part at 190 Hz, the housing at 640 Hz and a click."""
    modes = ((190.0, 1.0, 0.02), (640.0, 0.8, 0.008), (min(2500.0, 0.3 * rate_hz), 0.5, 0.002))
    return ringing(modes, rate_hz)


def _gate(t: Floats, fault: config.Fault) -> Floats:
    """0 while the fault is off, 1 while it is on. [n]"""
    until_s = np.inf if fault.until_s is None else fault.until_s
    return np.asarray(np.clip(np.minimum(t - fault.at_s, until_s - t) / FADE_S, 0, 1))
