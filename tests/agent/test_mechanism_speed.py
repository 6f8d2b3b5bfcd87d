from __future__ import annotations

import msgspec
import numpy as np
import pytest

from asd_agent.config.kinematics import Blades, Gear, Mechanism
from asd_agent.mechanism import Analyser, Speed
from asd_agent.mechanism.naming import window_spectra
from asd_agent.mechanism.shaft_speed import CLEAR, MOST_SLIP, SpeedBelief, believe
from asd_agent.mechanism.spectrum import transform
from asd_agent.mechanism.speed import find, from_message, refine
from asd_agent.mechanism.speed_track import WANDER, SpeedTrack
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


TONAL = {"gear": Mechanism(shaft_hz=24.9, speed_tolerance=0.15, gears=[Gear(name="G", teeth=23)]),
         "blade": Mechanism(shaft_hz=24.9, speed_tolerance=0.15, blades=[Blades(name="fan", count=7)])}  # fmt: skip


@pytest.mark.parametrize(("part", "order"), [("gear", 23), ("blade", 7)])
@pytest.mark.parametrize("hz", [22.43, 24.87, 27.9])
def test_a_mesh_and_a_blade_pass_tell_the_speed_where_the_shaft_is_silent(part, order, hz):
    """Two lines and noise: no comb of the shaft is heard."""
    t = np.arange(10 * RATE_HZ) / RATE_HZ
    x = np.random.default_rng(1).standard_normal(len(t)) + sum(
        0.3 * np.sin(2 * np.pi * k * order * hz * t) for k in (1, 2)
    )
    told, silent = belief_of(TONAL[part], x), belief_of(Mechanism(shaft_hz=24.9, speed_tolerance=0.15), x)
    assert told.grid[int(np.argmax(told.weights))] == pytest.approx(hz, rel=0.002)
    assert told.weights.max() > CLEAR
    assert told.weights.max() > silent.weights.max()
    noise = belief_of(TONAL[part], np.random.default_rng(2).standard_normal(len(t)))
    assert told.weights.max() > noise.weights.max()


def belief_of(config: Mechanism, x: np.ndarray) -> SpeedBelief:
    analyser = Analyser(msgspec.structs.replace(config, bearings=CONFIG.bearings), RATE_HZ)
    speeds = analyser.speed_range(None)
    whole = analyser.analyse(x.astype(np.float32))
    return believe(window_spectra(analyser, whole, speeds).full, speeds)


def test_the_pole_pass_and_the_slip_speak_for_a_speed_below_the_synchronous_one():
    motor = Mechanism(shaft_hz=24.0, speed_tolerance=0.2, mains_hz=50, poles=4, bearings=CONFIG.bearings)
    belief = belief_of(motor, np.random.default_rng(0).standard_normal(10 * RATE_HZ))
    inside = (belief.grid <= 25) & (belief.grid >= 25 * (1 - MOST_SLIP))
    share = np.exp(belief.weights - belief.weights.max())
    assert share[inside].sum() / share.sum() > 2 * inside.mean()


def test_a_speed_is_followed_through_windows_in_which_it_is_hardly_heard():
    analyser = Analyser(Mechanism(), RATE_HZ)
    track = SpeedTrack()
    faint = [rotor(24.87 * (1 + 0.002 * i), 8, 10 + i, 0.022) for i in range(6)]
    assert all(analyser.analyse(x).speed is None for x in faint)
    assert track.follow(analyser.analyse(faint[0])) is None  # nothing is known yet
    assert track.follow(analyser.analyse(rotor(24.87))) == pytest.approx(24.87, rel=1e-3)
    followed = [track.follow(analyser.analyse(x)) for x in faint]
    heard = [(hz, 24.87 * (1 + 0.002 * i)) for i, hz in enumerate(followed) if hz is not None]
    assert len(heard) >= 3
    assert all(hz == pytest.approx(true, rel=WANDER) for hz, true in heard)


def test_a_track_that_has_lost_the_speed_says_unknown():
    analyser = Analyser(Mechanism(), RATE_HZ)
    track = SpeedTrack()
    track.learn(24.87)
    for seed in range(8):
        noise = np.random.default_rng(seed).standard_normal(10 * RATE_HZ).astype(np.float32)
        assert track.follow(analyser.analyse(noise)) is None
