"""Synthetic ground truth: the named line is right, and gain, offset, sign and position do not change the finding."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.config.kinematics import Mechanism
from asd_agent.errors import BaselineError
from asd_agent.mechanism import Analyser, Finding, MechanismBaseline, Rank, Speed
from asd_agent.mechanism.diagnose import diagnose
from mechanism_machine import CONFIG, RATE_HZ, SECONDS, SHAFT_HZ, TEETH, Faults, inner_order, machine, outer_order

NO_GEOMETRY = Mechanism(mains_hz=50.0)


@pytest.fixture(scope="module")
def baseline() -> MechanismBaseline:
    analyser = Analyser(CONFIG, RATE_HZ)
    return MechanismBaseline.fit([analyser.indicators(machine(i)).values for i in range(30)], np.arange(30) // 6)


@pytest.fixture(scope="module")
def blind_baseline() -> MechanismBaseline:
    """Of a machine of which nothing is known."""
    analyser = Analyser(NO_GEOMETRY, RATE_HZ)
    return MechanismBaseline.fit([analyser.indicators(machine(i)).values for i in range(20)], np.arange(20) // 4)


@pytest.mark.parametrize("seed", range(200, 208))
def test_a_healthy_machine_has_no_finding(baseline, seed):
    assert [f for f in diagnose(machine(seed), RATE_HZ, CONFIG, baseline) if f.component] == []


@pytest.mark.parametrize(
    ("faults", "component", "indicator", "hz", "words"),
    [
        (Faults(outer=2.0), "bearing DE outer race", "envelope.DE.bpfo", outer_order() * SHAFT_HZ, "BPFO of DE"),
        (Faults(inner=2.0), "bearing DE inner race", "envelope.DE.bpfi", inner_order() * SHAFT_HZ, "BPFI of DE"),
        (Faults(gear=0.8), "gear G1", "orders.G1.sidebands_shaft", None, "24.9 Hz apart around 572"),
        (Faults(bars=0.12), "motor rotor", "orders.motor.bars", None, "broken rotor bar"),
        (Faults(ball=3.0), "bearing DE rolling element", "envelope.DE.bsf2", None, "2xBSF of DE"),
        (Faults(belt=0.2), "belt V", None, None, "belt"),
        (Faults(eccentric=0.3), "motor", "orders.motor.eccentric", None, "eccentricity"),
        (Faults(cavitation=1.0), "fan", None, 13 * SHAFT_HZ, "modulated at the vane pass"),
        (Faults(blade=0.5), "fan", "orders.fan.blade1", 13 * SHAFT_HZ, "blade"),
        (Faults(imbalance=0.8), "", "orders.shaft.1x", SHAFT_HZ, "imbalance"),
        (Faults(half_orders=0.15), "", "orders.shaft.half", SHAFT_HZ / 2, "looseness"),
        (Faults(electrical=0.4), "", "orders.mains.2x", 100.0, "electrical"),
        (Faults(hiss=1.5), "", None, None, "broadband"),
        (Faults(knock=20.0), "", "shape.crest_max", None, "a single knock 4.0 s into the window"),
    ],
    ids=lambda v: "" if not isinstance(v, Faults) else next(k for k, a in msgspec.to_builtins(v).items() if a),
)
def test_each_fault_is_named_first(baseline, faults, component, indicator, hz, words):
    top = diagnose(machine(100, faults), RATE_HZ, CONFIG, baseline)[0]
    assert top.component == component
    assert words in top.words
    if indicator is not None:
        assert top.indicator == indicator
    if hz is not None:
        assert top.hz == pytest.approx(hz, rel=0.004)
    assert top.p_value is not None
    assert top.p_value < 0.01
    assert top.rank == (Rank.COMPONENT if component else top.rank)


@pytest.mark.parametrize("faults", [Faults(flow=1.0), Faults(shaft_flow=1.0)])
@pytest.mark.parametrize("seed", [100, 101])
def test_noise_that_no_vane_modulates_is_no_cavitation(baseline, faults, seed):
    """Steady noise, and noise that pulsates once per turn."""
    found = diagnose(machine(seed, faults), RATE_HZ, CONFIG, baseline)
    assert found
    assert not any(f.component for f in found)


def test_a_speed_outside_the_tolerance_is_said_with_the_one_that_would_do():
    config = msgspec.convert(
        {"shaft_hz": 22.9, "speed_tolerance": 0.02, "bearings": [{"name": "DE", "type": "6205"}]}, Mechanism
    )
    top = diagnose(machine(100, Faults(inner=4.0)), RATE_HZ, config)[0]
    assert top.component == ""
    assert "BPFI of DE if the shaft turned at 24.9 Hz" in top.words
    assert "speed_tolerance 0.09" in top.words


def test_broadband_noise_is_named_by_its_band(baseline):
    top = diagnose(machine(100, Faults(hiss=1.5)), RATE_HZ, CONFIG, baseline)[0]
    assert top.rank == Rank.BAND
    low, high = top.band_hz
    assert 1500 < low < 2500
    assert 2600 < high < 3800


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    slip=st.floats(-0.006, 0.018),
    jitter=st.floats(0.003, 0.015),
    inner=st.booleans(),
)
def test_slip_and_jitter_do_not_hide_an_impact_train(seed, slip, jitter, inner):
    """Without any baseline, from the spectrum alone."""
    faults = Faults(inner=3.0, slip=slip, jitter=jitter) if inner else Faults(outer=4.0, slip=slip, jitter=jitter)
    top = diagnose(machine(seed, faults), RATE_HZ, CONFIG)[0]
    order = inner_order(slip) if inner else outer_order(slip)
    assert top.component == ("bearing DE inner race" if inner else "bearing DE outer race")
    # The impacts are read to a bin; the shaft, and so the order, may follow a chance sideband by half a percent.
    assert top.order == pytest.approx(order, rel=0.01)


WINDOW = round(4 * RATE_HZ)
LONG = {"outer": machine(11, Faults(outer=3.0), seconds=12), "inner": machine(12, Faults(inner=3.0), seconds=12)}


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(["outer", "inner"]),
    start=st.integers(0, 12 * RATE_HZ - 2 * WINDOW),
    gain_db=st.floats(-60, 60),
    offset=st.floats(-3, 3),
    sign=st.sampled_from([-1.0, 1.0]),
)
def test_gain_offset_sign_and_position_do_not_change_the_finding(kind, start, gain_db, offset, sign):
    x = LONG[kind][start : start + 2 * WINDOW]
    moved = (sign * 10 ** (gain_db / 20) * (x + offset * x.std())).astype(np.float32)
    findings = diagnose(moved, RATE_HZ, CONFIG)
    assert findings[0].component == f"bearing DE {kind} race"
    plain = diagnose(x, RATE_HZ, CONFIG)
    assert _what(findings) == _what(plain)


def _what(findings: list[Finding]) -> list[tuple]:
    return [(f.rank, f.component, f.indicator, f.harmonics, round(f.hz or 0, 1)) for f in findings]


@pytest.mark.parametrize("faults", [Faults(gear=0.8), Faults(imbalance=0.8), Faults(bars=0.15)])
@pytest.mark.parametrize(("gain", "offset"), [(100.0, 0.0), (-0.01, 0.001), (1.0, -0.3)])
def test_gain_offset_and_sign_do_not_change_a_line_finding(baseline, faults, gain, offset):
    x = machine(100, faults)
    plain = diagnose(x, RATE_HZ, CONFIG, baseline)[0]
    changed = diagnose((gain * (x + offset)).astype(np.float32), RATE_HZ, CONFIG, baseline)[0]
    assert (changed.component, changed.indicator) == (plain.component, plain.indicator)


def test_without_geometry_a_rate_is_named_and_no_component(blind_baseline):
    findings = diagnose(machine(100, Faults(outer=2.0)), RATE_HZ, NO_GEOMETRY, blind_baseline)
    assert all(not f.component for f in findings)
    assert findings[0].rank == Rank.BAND
    assert findings[0].hz == pytest.approx(outer_order() * SHAFT_HZ, rel=0.004)
    assert "periodic impacts at 89" in findings[0].words
    assert findings[0].order == pytest.approx(outer_order(), rel=0.004)  # the speed was estimated


def test_without_a_reliable_speed_no_component_is_named():
    """The same sound; only the knowledge of the speed differs."""
    x = machine(100, Faults(outer=3.0))
    vague = Speed(24.0, "given", tolerance=0.05)
    assert diagnose(x, RATE_HZ, CONFIG, speed=Speed(SHAFT_HZ, "given"))[0].component
    rng = np.random.default_rng(0)
    hidden = x + (0.3 * rng.standard_normal(len(x))).astype(np.float32)  # no comb, so the speed is not sharpened
    findings = diagnose(hidden, RATE_HZ, CONFIG, speed=vague)
    assert all(not f.component for f in findings)


def test_a_wrong_bearing_is_not_blamed():
    x = machine(100, Faults(outer=3.0))
    for balls, ratio in [(8, 0.24), (7, 0.21), (12, 0.19), (13, 0.24)]:
        other = {"name": "X", "balls": balls, "ball_d": ratio, "pitch_d": 1.0}
        config = msgspec.convert({"shaft_hz": 24.9, "mains_hz": 50, "bearings": [other]}, Mechanism)
        assert all(not f.component for f in diagnose(x, RATE_HZ, config))


def near_three(order: float) -> Mechanism:
    """A bearing whose outer race is passed nearly three times per turn, as in a 6203."""
    bearing = {"name": "T", "orders": {"bpfo": order, "bpfi": 8 - order}}
    return msgspec.convert({"shaft_hz": 24.9, "bearings": [bearing]}, Mechanism)


def test_a_train_that_resolves_from_a_shaft_harmonic_is_named():
    """2.97 orders against 3: six bins of an 8 s window."""
    x = train_of_impacts(2.97, seconds=8)
    top = diagnose(x, RATE_HZ, near_three(3.0))[0]
    assert top.component == "bearing T outer race"
    assert top.order == pytest.approx(2.97, rel=0.002)


def test_a_train_that_does_not_resolve_is_reported_with_both_readings():
    top = diagnose(train_of_impacts(3.0, seconds=8), RATE_HZ, near_three(3.01))[0]
    assert top.component == ""
    assert "3 x shaft or BPFO of T" in top.words


def train_of_impacts(order: float, seconds: float, shaft_hz: float = SHAFT_HZ) -> np.ndarray:
    """A healthy machine with impacts at any order."""
    x = machine(100, seconds=seconds, shaft_hz=shaft_hz).astype(float)
    rng = np.random.default_rng(3)
    times = np.cumsum((1 + 0.01 * rng.standard_normal(round(order * shaft_hz * seconds))) / (order * shaft_hz))
    hits = np.zeros(len(x))
    hits[(times[times < seconds - 0.01] * RATE_HZ).astype(int)] = 0.12
    t = np.arange(160) / RATE_HZ
    return (x + np.convolve(hits, np.exp(-600 * t) * np.sin(2 * np.pi * 2500 * t))[: len(x)]).astype(np.float32)


def test_an_old_bearing_that_did_not_grow_is_not_blamed():
    """Lines that were there on the day of the calibration are normal."""
    analyser = Analyser(CONFIG, RATE_HZ)
    worn = [analyser.indicators(machine(i, Faults(outer=2.0))).values for i in range(20)]
    baseline = MechanismBaseline.fit(worn, np.arange(20) // 4)
    for seed in range(100, 104):
        assert all(not f.component for f in diagnose(machine(seed, Faults(outer=2.0)), RATE_HZ, CONFIG, baseline))


def test_mains_and_shaft_lines_that_fall_together_are_said_to():
    """At exactly 25 Hz the fourth harmonic is twice the mains."""
    config = msgspec.convert({"shaft_hz": 25.0, "mains_hz": 50}, Mechanism)
    analyser = Analyser(config, RATE_HZ)
    normal = [analyser.indicators(machine(i, shaft_hz=25.0)).values for i in range(20)]
    baseline = MechanismBaseline.fit(normal, np.arange(20) // 4)
    findings = diagnose(machine(100, Faults(electrical=0.8), shaft_hz=25.0), RATE_HZ, config, baseline)
    assert any("not separable from 4 x shaft" in f.words for f in findings)


def test_gated_windows_have_no_finding(baseline):
    assert diagnose(np.zeros(RATE_HZ, np.float32), RATE_HZ, CONFIG, baseline) == []
    assert diagnose(machine(1), RATE_HZ, CONFIG, baseline, Speed(0.0, "given", running=False)) == []


def test_another_rate_than_the_calibration_is_one_clear_error(baseline):
    x = np.random.default_rng(0).standard_normal(44_100 * 2).astype(np.float32)
    with pytest.raises(BaselineError, match="calibrate again"):
        diagnose(x, 44_100, CONFIG, baseline)


def test_the_wheel_is_told_from_the_pinion():
    """The spacing of the sidebands names the shaft that carries the damage."""
    analyser = Analyser(CONFIG, RATE_HZ)
    wheel_hz = SHAFT_HZ * TEETH / 57
    t = np.arange(round(SECONDS * RATE_HZ)) / RATE_HZ
    mesh = 0.012 * np.sin(2 * np.pi * TEETH * SHAFT_HZ * t) * np.sin(2 * np.pi * wheel_hz * t)
    baseline = MechanismBaseline.fit([analyser.indicators(machine(i)).values for i in range(20)], np.arange(20) // 4)
    top = diagnose((machine(100) + mesh).astype(np.float32), RATE_HZ, CONFIG, baseline)[0]
    assert top.indicator == "orders.G1.sidebands_wheel"
    assert "on wheel" in top.words


SEVERITY = ("iso", "zone a", "zone b", "zone c", "zone d", "mm/s", "severe", "unacceptable", "satisfactory")


@pytest.mark.parametrize("faults", [Faults(outer=4.0), Faults(imbalance=2.0), Faults(half_orders=0.5)])
def test_no_severity_is_told_where_no_sensor_is_calibrated(baseline, faults):
    """ISO 20816 speaks of mm/s; neither a microphone nor a configured source has a calibrated unit."""
    told = " ".join(finding.words for finding in diagnose(machine(100, faults), RATE_HZ, CONFIG, baseline)).lower()
    assert told
    assert not any(word in told for word in SEVERITY)


def test_a_line_that_two_parts_share_names_neither(baseline):
    """26 x shaft: twice the blades, and the third sideband of the mesh."""
    t = np.arange(round(SECONDS * RATE_HZ)) / RATE_HZ
    x = machine(100) + np.asarray(0.01 * np.sin(2 * np.pi * 26 * SHAFT_HZ * t), np.float32)
    assert not any(finding.component for finding in diagnose(x, RATE_HZ, CONFIG, baseline))


@pytest.mark.parametrize("order", [44.0, 45.3])
def test_a_forest_of_lines_is_not_the_mesh(baseline, order):
    """A tone near the mesh that wanders to and fro nine times a second has lines everywhere, on the mesh too."""
    t = np.arange(round(SECONDS * RATE_HZ)) / RATE_HZ
    wander = 8 * np.sin(2 * np.pi * 0.37 * SHAFT_HZ * t)
    x = machine(100) + np.asarray(0.02 * np.sin(2 * np.pi * order * SHAFT_HZ * t + wander), np.float32)
    assert not any(finding.component for finding in diagnose(x, RATE_HZ, CONFIG, baseline))
