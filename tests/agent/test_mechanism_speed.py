from __future__ import annotations

import numpy as np
import pytest

from asd_agent.config.kinematics import Mechanism
from asd_agent.mechanism import Analyser, Speed
from asd_agent.mechanism.spectrum import transform
from asd_agent.mechanism.speed import find, from_message, refine
from asd_agent.mechanism.tracking import Track, resample_to_angle, straighten
from mechanism_machine import CONFIG, RATE_HZ, SHAFT_HZ, Faults, machine


def rotor(hz: float, harmonics: int = 8, seed: int = 0, amplitude: float = 0.15) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(10 * RATE_HZ) / RATE_HZ
    x = rng.standard_normal(len(t))
    for k in range(1, harmonics + 1):
        x += amplitude * np.sin(2 * np.pi * (k * hz * t + rng.uniform()))
    return x.astype(np.float32)


@pytest.mark.parametrize("hz", [13.7, 24.87, 29.95, 41.3, 58.2])
@pytest.mark.parametrize("harmonics", [6, 12])
def test_a_comb_gives_its_speed(hz, harmonics):
    speed = find(transform(rotor(hz, harmonics), RATE_HZ), 12, 65)
    assert speed is not None
    assert speed.hz == pytest.approx(hz, rel=1e-3)
    assert speed.reliable


@pytest.mark.parametrize("seed", range(20))
def test_noise_has_no_speed(seed):
    x = np.random.default_rng(seed).standard_normal(10 * RATE_HZ).astype(np.float32)
    assert find(transform(x, RATE_HZ), 12, 65) is None


def test_two_or_three_lines_are_not_enough_to_be_sure():
    assert find(transform(rotor(24.87, 2), RATE_HZ), 12, 65) is None


def test_every_second_harmonic_is_ambiguous():
    t = np.arange(10 * RATE_HZ) / RATE_HZ
    x = np.random.default_rng(0).standard_normal(len(t)) + sum(0.2 * np.sin(2 * np.pi * 20 * k * t) for k in (2, 4, 6))
    speed = find(transform(x.astype(np.float32), RATE_HZ), 15, 30)
    assert speed is None


def test_a_nominal_speed_is_sharpened_and_otherwise_kept():
    nominal = Speed(24.9, "configured", tolerance=0.02)
    sharp = refine(transform(rotor(24.62), RATE_HZ), nominal)
    assert sharp.hz == pytest.approx(24.62, rel=1e-3)
    assert sharp.reliable
    kept = refine(transform(np.random.default_rng(1).standard_normal(80_000).astype(np.float32), RATE_HZ), nominal)
    assert kept == nominal
    assert not kept.reliable  # 2 % is too little to name a component by


@pytest.mark.parametrize(
    ("payload", "hz", "running"),
    [
        (b"1494", 24.9, True),
        (b"1494.0", 24.9, True),
        (b'{"rpm": 1494, "running": true}', 24.9, True),
        (b'{"rpm": 1494, "running": false}', 24.9, False),
        (b'{"rpm": 0, "unit": "1/min"}', 0.0, False),
    ],
)
def test_a_message_gives_the_speed(payload, hz, running):
    speed = from_message(payload)
    assert speed is not None
    assert (speed.hz, speed.running) == (pytest.approx(hz), running)


@pytest.mark.parametrize("payload", [b"", b"fast", b'{"rpm": "x"}', b"-3", b"[1]", b'{"speed": 3}', b"\xff"])
def test_a_bad_message_gives_nothing(payload):
    assert from_message(payload) is None


def test_a_standing_machine_is_not_judged():
    found = Analyser(Mechanism(), RATE_HZ).indicators(rotor(24.9), Speed(0.0, "given", running=False))
    assert found.gates == ("stopped",)


@pytest.mark.parametrize("drift", [0.02, 0.05])
def test_a_drifting_speed_is_followed(drift):
    """At equal shaft angles the tenth harmonic is a sharp line again."""
    spectrum = transform(machine(1, Faults(drift=drift)), RATE_HZ)
    found = straighten(spectrum, SHAFT_HZ)
    assert found is not None
    angular, hz = found
    assert hz == pytest.approx(SHAFT_HZ, rel=0.003)
    assert _sharpness(angular, 10 * hz) > 2 * _sharpness(spectrum, 10 * SHAFT_HZ)


def _sharpness(spectrum, hz: float) -> float:
    """Share of the power within 3 % of a line that its strongest bins hold."""
    at = round(hz / spectrum.df_hz)
    reach = round(0.03 * at)
    around = spectrum.power[at - reach : at + reach]
    peak = int(np.argmax(around))
    return float(around[max(0, peak - 2) : peak + 3].sum() / around.sum())


def test_a_steady_speed_is_left_alone():
    for seed in range(4):
        assert straighten(transform(machine(seed), RATE_HZ), SHAFT_HZ) is None


def test_resampling_turns_a_chirp_into_a_tone():
    n = 10 * RATE_HZ
    t = np.arange(n) / RATE_HZ
    hz = 25 * (1 + 0.05 * (t / 10 - 0.5))
    x = np.sin(2 * np.pi * 40 * np.cumsum(hz) / RATE_HZ).astype(np.float32)  # the 40th order, near 1 kHz
    y = resample_to_angle(x, RATE_HZ, Track(t[::4000], hz[::4000], 9.0))
    spectrum = transform(y, RATE_HZ)
    peak = int(np.argmax(spectrum.power))
    assert spectrum.power[peak - 2 : peak + 3].sum() > 0.95 * spectrum.power.sum()
    assert peak * spectrum.df_hz == pytest.approx(1000, rel=2e-3)


def test_a_slow_drift_does_not_hide_a_bearing():
    analyser = Analyser(CONFIG, RATE_HZ)
    whole = analyser.analyse(machine(5, Faults(outer=2.0, drift=0.03)))
    assert whole.drifting
    assert whole.speed is not None
    assert whole.speed.hz == pytest.approx(SHAFT_HZ, rel=0.003)
