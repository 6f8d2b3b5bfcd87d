"""Faults of one component of a machine, by the physics that the mechanism analysis relies on.

    inner_race       impacts at the BPFI of a 6205, stronger in the load zone, which a point of the ring passes per turn
    rolling_element  impacts at twice the ball spin, stronger in the load zone, which the ball passes with the cage
    tooth            a damaged tooth of the pinion: the mesh is modulated by a pulse per turn of the shaft
    wheel_tooth      the same on the wheel, per turn of the wheel
    belt             lines at the belt's own rate and its harmonics
    blade            a damaged blade or narrow gap: the blade pass and its second harmonic
    cavitation       broadband noise that swells with each vane (Brennen, Hydrodynamics of Pumps, 1994)
    rotor_bar        sidebands of the rotation at the pole pass, poles x slip: 2 x mains - poles x shaft
    eccentricity     sidebands of 2 x mains at the pole pass
    electrical       2 x mains alone
    looseness        half orders of the shaft
Counter-examples, which no component may be named for:
    flow             the noise of cavitation, steady
    surge            the same noise, swelling once per turn

All follow the shaft's revolutions, or the mains, from block to block, and have an RMS of 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asd_agent import config
from asd_agent.capture.filters import Convolver, FilteredNoise, band_response, ringing
from asd_agent.config.bearings import BEARINGS, geometry_orders
from asd_agent.types import Floats

COUNTER_EXAMPLES = ("flow", "surge")
COMPONENT_FAULTS = (
    "inner_race", "rolling_element", "tooth", "wheel_tooth", "belt", "blade", "cavitation", "rotor_bar",
    "eccentricity", "electrical", "looseness", *COUNTER_EXAMPLES,
)  # fmt: skip
BEARING = "6205"
CAGE_SLIP = 0.003  # the cage lags behind pure rolling (Randall & Antoni 2011)
JITTER = 0.01  # of the time between two impacts
LOAD_ZONE = 0.8  # depth of its modulation
TOOTH_SHARPNESS = 8.0  # of the von Mises pulse with which a damaged tooth modulates its mesh
VANE_DEPTH = 0.8
BELT_LINES = (1.0, 0.5, 0.3)

Wave = Callable[[Floats, Floats], Floats]  # (revolutions [n], seconds [n]) -> [n]


class ComponentFault:
    """One fault as a stream, expected RMS 1."""

    def __init__(self, kind: str, source: config.SimulatedSource, rng: np.random.Generator) -> None:
        """Raises ValueError for an unknown kind."""
        self._impacts = _impacts_of(kind, source, rng)
        self._wave: Wave | None = None if self._impacts is not None else _wave_of(kind, source, rng)

    def take(self, revs: Floats, t: Floats) -> Floats:
        """[n] for the shaft's revolutions and the time at each sample, both rising from block to block."""
        if self._impacts is not None:
            return self._impacts.take(revs)
        assert self._wave is not None
        return self._wave(revs, t)

    def skip(self, revs: Floats) -> None:
        """Let the time pass while the fault is switched off."""
        if self._impacts is not None:
            self._impacts.skip(revs)


class Impacts:
    """Impacts `order` times per revolution that ring with `response` [taps]; their amplitude is modulated
    `modulation` times per revolution (0 = not). The time between two strays by `jitter`."""

    def __init__(
        self, order: float, response: Floats, rng: np.random.Generator, modulation: float = 0.0,
        jitter: float = JITTER, gain: float = 1.0,
    ) -> None:  # fmt: skip
        self._order, self._modulation, self._jitter, self._gain, self._rng = order, modulation, jitter, gain, rng
        self._filter = Convolver(response)
        self._next = rng.uniform() / order
        self._angle = rng.uniform(0, 2 * np.pi)

    def take(self, revs: Floats) -> Floats:
        """[n] for the shaft's revolutions at each sample."""
        hits = np.zeros(len(revs))
        while self._next <= revs[-1]:
            depth = LOAD_ZONE * np.cos(2 * np.pi * self._modulation * self._next + self._angle)
            hits[np.searchsorted(revs, self._next)] += 1 + (depth if self._modulation else 0.0)
            self._next += (1 + self._jitter * self._rng.standard_normal()) / self._order
        return np.asarray(self._gain * self._filter.take(hits))

    def skip(self, revs: Floats) -> None:
        self._next = max(self._next, float(revs[-1]))


def bearing_response(rate_hz: int) -> Floats:
    """Two structural resonances that ring for about a millisecond."""
    modes = ((min(3200.0, 0.2 * rate_hz), 1.0, 0.0012), (min(5200.0, 0.33 * rate_hz), 0.6, 0.0008))
    return ringing(modes, rate_hz)


def _impacts_of(kind: str, source: config.SimulatedSource, rng: np.random.Generator) -> Impacts | None:
    if kind not in ("inner_race", "rolling_element"):
        return None
    orders = geometry_orders(*BEARINGS[BEARING])
    balls = orders.bpfo + orders.bpfi
    assert orders.bsf2 is not None  # the table holds geometries
    inner = balls - orders.bpfo * (1 - CAGE_SLIP)
    order, modulation = (inner, 1.0) if kind == "inner_race" else (orders.bsf2, orders.ftf * (1 - CAGE_SLIP))
    response = bearing_response(source.rate_hz)
    per_sample = source.shaft_hz * order / source.rate_hz
    power = per_sample * (1 + LOAD_ZONE**2 / 2) * np.sum(response**2)
    return Impacts(order, response, rng, modulation, gain=float(1 / np.sqrt(power)))


def _wave_of(kind: str, source: config.SimulatedSource, rng: np.random.Generator) -> Wave:
    if kind in ("cavitation", *COUNTER_EXAMPLES):
        return _noise(kind, source, rng)
    angle = rng.uniform(0, 2 * np.pi, 4)
    pole_pass: Wave = lambda revs, t: 2 * source.mains_hz * t - source.poles * revs  # noqa: E731
    waves: dict[str, Wave] = {
        "tooth": lambda revs, _: _tooth(revs, source.gear_teeth * revs, angle),
        "wheel_tooth": lambda revs, _: _tooth(
            revs * source.gear_teeth / source.wheel_teeth, source.gear_teeth * revs, angle
        ),
        "belt": lambda revs, _: _harmonics(source.belt_turns * revs, BELT_LINES, angle),
        "blade": lambda revs, _: _harmonics(source.blades * revs, (1.0, 0.5), angle),
        "rotor_bar": lambda revs, t: _sidebands(revs, pole_pass(revs, t), angle),
        "eccentricity": lambda revs, t: _sidebands(2 * source.mains_hz * t, pole_pass(revs, t), angle),
        "electrical": lambda _, t: _harmonics(2 * source.mains_hz * t, (1.0,), angle),
        "looseness": lambda revs, _: _harmonics(0.5 * revs, (1.0, 0.0, 1.0, 0.0, 1.0), np.zeros(5)),
    }
    if kind not in waves:
        raise ValueError(f"unknown fault {kind!r}: one of {', '.join(COMPONENT_FAULTS)}")
    return waves[kind]


def _harmonics(turns: Floats, amplitudes: tuple[float, ...], angle: Floats) -> Floats:
    size = np.sqrt(np.square(amplitudes).sum() / 2)
    parts = (a * np.sin(2 * np.pi * k * turns + p) for k, (a, p) in enumerate(zip(amplitudes, angle, strict=False), 1))
    return np.asarray(sum(parts) / size)


def _sidebands(carrier: Floats, spacing: Floats, angle: Floats) -> Floats:
    """A line either side of the carrier, without the carrier itself."""
    low, high = carrier - spacing, carrier + spacing
    return np.asarray(np.sin(2 * np.pi * low + angle[0]) + np.sin(2 * np.pi * high + angle[1]))


def _tooth(turns: Floats, mesh: Floats, angle: Floats) -> Floats:
    """What a damaged tooth adds to its mesh: a pulse per turn without its mean, times the mesh and its second
    harmonic."""
    circle = 2 * np.pi * np.arange(256) / 256
    shape = np.exp(TOOTH_SHARPNESS * (np.cos(circle) - 1))
    pulse = np.exp(TOOTH_SHARPNESS * (np.cos(2 * np.pi * turns + angle[2]) - 1)) - shape.mean()
    return np.asarray(pulse / shape.std() * _harmonics(mesh, (1.0, 0.5), angle))


def _noise(kind: str, source: config.SimulatedSource, rng: np.random.Generator) -> Wave:
    low, high = min(1500 / source.rate_hz, 0.19), min(8000 / source.rate_hz, 0.44)
    noise = FilteredNoise(band_response(source.rate_hz, low, high), rng)
    order = {"cavitation": float(source.blades), "surge": 1.0, "flow": 0.0}[kind]
    depth = VANE_DEPTH if order else 0.0
    size = np.sqrt(1 + depth**2 / 2)

    def wave(revs: Floats, _: Floats) -> Floats:
        return np.asarray(noise.take(len(revs)) * (1 + depth * np.cos(2 * np.pi * order * revs)) / size)

    return wave
