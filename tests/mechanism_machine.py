"""A machine with known faults, for the mechanism analysis: every line's frequency is known by construction."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from asd_agent.config.kinematics import Mechanism
from asd_agent.types import Samples

RATE_HZ = 8000
SECONDS = 8.0
SHAFT_HZ = 24.87
MAINS_HZ = 50.0
POLES = 4
VANES = 13
BALL_ORDER, CAGE_ORDER = 4.7135, 0.39828
BELT_ORDER = np.pi * 100 / 1200
TEETH = 23
CONFIG = msgspec.convert(
    {
        "shaft_hz": 24.9,
        "mains_hz": MAINS_HZ,
        "poles": POLES,
        "bearings": [{"name": "DE", "type": "6205"}],
        "gears": [{"name": "G1", "teeth": TEETH, "wheel_teeth": 57}],
        "blades": [{"name": "fan", "count": VANES}],
        "belts": [{"name": "V", "pulley_d": 100, "length": 1200}],
    },
    Mechanism,
)


@dataclass(frozen=True)
class Faults:
    """Amplitudes; 0 = healthy."""

    imbalance: float = 0.0
    half_orders: float = 0.0
    gear: float = 0.0  # depth of the modulation of the mesh by the shaft
    bars: float = 0.0  # pole-pass sidebands of 1x
    electrical: float = 0.0  # at 2 x mains
    blade: float = 0.0
    outer: float = 0.0  # impacts
    inner: float = 0.0
    ball: float = 0.0  # impacts of a rolling element that passes the load zone with the cage
    wheel: float = 0.0  # modulation of the mesh by the wheel's shaft
    belt: float = 0.0  # once and twice per turn of the belt
    eccentric: float = 0.0  # pole-pass sidebands of 2 x mains
    cavitation: float = 0.0  # noise of 1.5-3.5 kHz modulated at the vane pass
    flow: float = 0.0  # the same noise, steady: no cavitation
    shaft_flow: float = 0.0  # the same noise modulated once per turn: no cavitation
    hiss: float = 0.0  # 2-3 kHz
    knock: float = 0.0  # once, in the middle
    slip: float = -0.003  # of the cage
    jitter: float = 0.01  # of the time between two impacts
    drift: float = 0.0  # relative change of the speed over the recording


def machine(seed: int, faults: Faults | None = None, seconds: float = SECONDS, shaft_hz: float = SHAFT_HZ) -> Samples:
    """[seconds * RATE_HZ] around 0.1 full scale."""
    faults = faults or Faults()
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE_HZ)
    t = np.arange(n) / RATE_HZ
    turns = shaft_hz * (t + faults.drift * (t**2 / (2 * seconds) - t / 2)) + rng.uniform()
    x = rng.standard_normal(n) + 1.5 * np.convolve(rng.standard_normal(n), np.ones(8) / 8, "same")
    for k in range(1, 11):
        x += 0.2 * rng.uniform(0.9, 1.1) * np.sin(2 * np.pi * (k * turns + rng.uniform()))
    x += faults.imbalance * np.sin(2 * np.pi * turns)
    for h in (0.5, 1.5, 2.5):
        x += faults.half_orders * np.sin(2 * np.pi * h * turns)
    for h in (1, 2):
        x += 0.3 / h * (1 + faults.gear * np.sin(2 * np.pi * turns)) * np.sin(2 * np.pi * h * TEETH * turns)
    pole_pass_hz = 2 * MAINS_HZ - POLES * shaft_hz
    for side in (-1, 1):
        x += faults.bars * np.sin(2 * np.pi * (turns + side * pole_pass_hz * t))
    x += (0.1 + faults.electrical) * np.sin(2 * np.pi * (2 * MAINS_HZ * t + rng.uniform()))
    x += faults.blade * np.sin(2 * np.pi * VANES * turns)
    x += faults.outer * _impacts(rng, turns, outer_order(faults.slip), faults.jitter, modulated=False)
    x += faults.inner * _impacts(rng, turns, inner_order(faults.slip), faults.jitter, modulated=True)
    x += faults.ball * _impacts(rng, turns, BALL_ORDER, faults.jitter, modulated=True, modulation=CAGE_ORDER)
    x += 0.3 * faults.wheel * np.sin(2 * np.pi * TEETH / 57 * turns) * np.sin(2 * np.pi * TEETH * turns)
    for h in (1, 2):
        x += faults.belt / h * np.sin(2 * np.pi * h * BELT_ORDER * turns)
    for side in (-1, 1):
        x += faults.eccentric * np.sin(2 * np.pi * (2 * MAINS_HZ + side * pole_pass_hz) * t)
    noise = _noise_band(rng, n, 1500, 3500)
    x += noise * faults.cavitation * (1 + 0.8 * np.cos(2 * np.pi * VANES * turns))
    x += noise * faults.flow + noise * faults.shaft_flow * (1 + 0.8 * np.cos(2 * np.pi * turns))
    x += faults.hiss * _noise_band(rng, n, 2000, 3000)
    x[n // 2 : n // 2 + 200] += faults.knock * np.exp(-np.arange(200) / 40) * np.sin(np.arange(200))
    return np.asarray(0.03 * x, np.float32)


def outer_order(slip: float = -0.003) -> float:
    """BPFO of a 6205 whose cage lags by `slip`."""
    return 3.584785 * (1 - slip)


def inner_order(slip: float = -0.003) -> float:
    return 9 - outer_order(slip)


def _impacts(
    rng: np.random.Generator, turns: np.ndarray, order: float, jitter: float, modulated: bool, modulation: float = 1.0
) -> np.ndarray:
    hits = np.zeros(len(turns))
    position = turns[0] + rng.uniform() / order
    while position < turns[-1]:
        depth = 0.8 * np.cos(2 * np.pi * modulation * position) if modulated else 0.0
        hits[np.searchsorted(turns, position)] += 1 + depth
        position += (1 + jitter * rng.standard_normal()) / order
    t = np.arange(160) / RATE_HZ
    return np.convolve(hits, np.exp(-600 * t) * np.sin(2 * np.pi * 2500 * t))[: len(turns)]


def _noise_band(rng: np.random.Generator, n: int, low_hz: float, high_hz: float) -> np.ndarray:
    bins = np.fft.rfft(rng.standard_normal(n))
    hz = np.arange(len(bins)) * RATE_HZ / n
    bins[(hz < low_hz) | (hz > high_hz)] = 0
    return np.fft.irfft(bins, n)
