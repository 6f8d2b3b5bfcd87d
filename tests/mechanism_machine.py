"""A machine with known faults, for the mechanism analysis: every line's frequency is known by construction.

The faults are those that ship with the simulated source; here they are set by amplitude, around another machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from asd_agent import config
from asd_agent.capture.component_faults import ComponentFault, Impacts
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
TEETH, WHEEL_TEETH = 23, 57
CONFIG = msgspec.convert(
    {
        "shaft_hz": 24.9,
        "mains_hz": MAINS_HZ,
        "poles": POLES,
        "bearings": [{"name": "DE", "type": "6205"}],
        "gears": [{"name": "G1", "teeth": TEETH, "wheel_teeth": WHEEL_TEETH}],
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


SHIPPED = {  # fault -> (kind of the simulated source, its RMS at amplitude 1)
    "gear": ("tooth", 0.168),
    "wheel": ("wheel_tooth", 0.15),
    "bars": ("rotor_bar", 1.0),
    "eccentric": ("eccentricity", 1.0),
    "electrical": ("electrical", 0.707),
    "blade": ("blade", 0.707),
    "belt": ("belt", 0.79),
    "half_orders": ("looseness", 1.22),
    "cavitation": ("cavitation", 0.81),
    "flow": ("flow", 0.71),
    "shaft_flow": ("surge", 0.81),
}


def machine(
    seed: int,
    faults: Faults | None = None,
    seconds: float = SECONDS,
    shaft_hz: float = SHAFT_HZ,
    rate_hz: int = RATE_HZ,
) -> Samples:
    """[seconds * rate_hz] around 0.1 full scale."""
    faults = faults or Faults()
    rng = np.random.default_rng(seed)
    n = round(seconds * rate_hz)
    t = np.arange(n) / rate_hz
    turns = shaft_hz * (t + faults.drift * (t**2 / (2 * seconds) - t / 2)) + rng.uniform()
    x = rng.standard_normal(n) + 1.5 * np.convolve(rng.standard_normal(n), np.ones(8) / 8, "same")
    for k in range(1, 11):
        x += 0.2 * rng.uniform(0.9, 1.1) * np.sin(2 * np.pi * (k * turns + rng.uniform()))
    x += faults.imbalance * np.sin(2 * np.pi * turns)
    for h in (1, 2):
        x += 0.3 / h * np.sin(2 * np.pi * h * TEETH * turns)
    x += 0.1 * np.sin(2 * np.pi * (2 * MAINS_HZ * t + rng.uniform()))
    x += _impacts(faults, turns, rate_hz, rng)
    source = config.SimulatedSource(
        rate_hz=rate_hz, shaft_hz=shaft_hz, gear_teeth=TEETH, wheel_teeth=WHEEL_TEETH, blades=VANES,
        belt_turns=BELT_ORDER, mains_hz=MAINS_HZ, poles=POLES,
    )  # fmt: skip
    for name, (kind, rms) in SHIPPED.items():
        if (amplitude := getattr(faults, name)) > 0:
            x += amplitude * rms * ComponentFault(kind, source, rng).take(turns, t)
    if faults.hiss > 0:
        x += faults.hiss * _noise_band(rng, n, rate_hz, 2000, 3000)
    x[n // 2 : n // 2 + 200] += faults.knock * np.exp(-np.arange(200) / 40) * np.sin(np.arange(200))
    return np.asarray(0.03 * x, np.float32)


def _impacts(faults: Faults, turns: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(rate_hz // 50) / rate_hz
    response = np.exp(-600 * t) * np.sin(2 * np.pi * 2500 * t)
    total = np.zeros(len(turns))
    for amplitude, order, modulation in (
        (faults.outer, outer_order(faults.slip), 0.0),
        (faults.inner, inner_order(faults.slip), 1.0),
        (faults.ball, BALL_ORDER, CAGE_ORDER),
    ):
        if amplitude > 0:
            total += Impacts(order, response, rng, modulation, faults.jitter, amplitude).take(turns)
    return total


def outer_order(slip: float = -0.003) -> float:
    """BPFO of a 6205 whose cage lags by `slip`."""
    return 3.584785 * (1 - slip)


def inner_order(slip: float = -0.003) -> float:
    return 9 - outer_order(slip)


def _noise_band(rng: np.random.Generator, n: int, rate_hz: int, low_hz: float, high_hz: float) -> np.ndarray:
    bins = np.fft.rfft(rng.standard_normal(n))
    hz = np.arange(len(bins)) * rate_hz / n
    bins[(hz < low_hz) | (hz > high_hz)] = 0
    return np.fft.irfft(bins, n)
