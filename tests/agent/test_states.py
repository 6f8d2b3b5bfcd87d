"""Operating states without labels, in the statistics and through the whole calibration."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from asd_agent import bank, config
from asd_agent.baseline import Baseline, LeftOut
from asd_agent.calibration import build as calibrate
from asd_agent.calibration import extend
from asd_agent.capture.simulate import SimulatedMachine, fault_signal, mix_at
from asd_agent.decide import states
from asd_agent.decide.blocks import sessions
from asd_agent.errors import CalibrationError
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.types import Block, Cause, Description, Samples, State
from asd_agent.windowing.windower import Windower

RATE = 16_000
MACHINE = config.Machine(id="m", source=config.StdinSource(rate_hz=RATE), window_s=2.0, hop_s=2.0)


def groups(sizes: list[int], apart: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = apart * np.arange(len(sizes))[:, None] * rng.choice([-1.0, 1.0], 64)
    label = np.repeat(np.arange(len(sizes)), sizes)
    return centres[label] + rng.standard_normal((len(label), 64)), label


@given(st.lists(st.integers(14, 60), min_size=2, max_size=4), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_groups_far_apart_are_found_and_numbered_by_level(sizes: list[int], seed: int) -> None:
    x, label = groups(sizes, 12.0, seed)
    np.testing.assert_array_equal(states.discover(x, -40.0 + 5 * label, np.zeros(len(x)), hop_s=10.0), label)


@given(st.integers(6, 120), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_one_group_is_one_state(n: int, seed: int) -> None:
    x, _ = groups([n], 0.0, seed)
    assert not states.discover(x, np.full(n, -20.0), np.zeros(n), hop_s=10.0).any()


def test_a_range_that_is_wandered_through_is_one_state() -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 20, 120)[:, None] + rng.standard_normal((120, 64))
    assert not states.discover(ramp, np.full(120, -20.0), np.zeros(120), hop_s=2.0).any()


def test_every_state_has_enough_windows() -> None:
    x, label = groups([40, 3], 12.0, 0)
    assert not states.discover(x, -20.0 + label, np.zeros(43), hop_s=10.0).any()


def test_many_windows_are_thinned_out() -> None:
    x, label = groups([4000, 3000], 12.0, 0)
    np.testing.assert_array_equal(states.discover(x, -40.0 + 10 * label, np.zeros(7000), hop_s=10.0), label)


@given(st.integers(1, 40), st.floats(0, 0.2), st.integers(0, 1000))
def test_components_are_those_of_scipy(n: int, share: float, seed: int) -> None:
    near = np.random.default_rng(seed).random((n, n)) < share
    near = near | near.T | np.eye(n, dtype=bool)
    assert states._connected(near).tolist() == connected_components(near, directed=False)[1].tolist()


def test_names() -> None:
    assert states.names([-20.0]) == ["running"]
    assert states.names([-45.0, -17.0, -14.0]) == ["off", "idle", "loaded"]
    assert states.names([-20.0, -17.0]) == ["idle", "loaded"]
    assert states.names([-20.0, -18.0, -16.0]) == ["state 1", "state 2", "state 3"]


def running(seconds: float, seed: int, **more: float) -> Samples:
    source = config.SimulatedSource(rate_hz=RATE, seed=seed, **more)
    return SimulatedMachine(source).take(round(seconds * RATE))


IDLE = {"shaft_hz": 24.9, "gear_teeth": 0, "level_dbfs": -24.0}
LOADED = {"shaft_hz": 23.0, "gear_teeth": 31, "level_dbfs": -20.0}


def described(pipeline: Pipeline, sound: Samples, origin: str = "", rate_hz: int = RATE) -> list[Description]:
    block = Block(sound[:, None], rate_hz, start_frame=0, utc_s=0.0, monotonic_s=0.0, origin=origin, last=True)
    machine = pipeline.machine
    cut = Windower(rate_hz, machine.window_s, machine.hop_s, pipeline.rates).push(block, 0)
    return [pipeline.describe(window) for window in cut]


@pytest.fixture(scope="module")
def two_states() -> Pipeline:
    """Idle and loaded by turns, in one recording."""
    bare = open_pipeline(MACHINE, None)
    sound = np.concatenate(
        [running(40, 1, **IDLE), running(40, 1, **LOADED), running(40, 2, **IDLE), running(40, 2, **LOADED)]
    )
    return Pipeline(MACHINE, bare.encoders, calibrate.build(MACHINE, described(bare, sound), bare, "v1"))


def test_states_are_found_and_each_window_belongs_to_its_own(two_states: Pipeline) -> None:
    assert [s.name for s in two_states.states] == ["idle", "loaded"]
    for name, settings_ in (("idle", IDLE), ("loaded", LOADED)):
        results = [two_states.judge(d) for d in described(two_states, running(30, 7, **settings_))]
        assert {r.operating for r in results} == {name}
        assert {r.state for r in results} == {State.NORMAL}
    assert any("2 operating states" in fact for fact in two_states.baseline.manifest.report.facts)


def test_a_fault_in_one_state_is_found(two_states: Pipeline) -> None:
    sound = running(30, 7, **LOADED)
    faulty = mix_at(sound, fault_signal("squeal", len(sound), RATE, np.random.default_rng(0)), -5)
    assert all(two_states.judge(d).state is State.ANOMALOUS for d in described(two_states, faulty))


def test_a_state_told_from_outside_is_the_one_that_judges(two_states: Pipeline) -> None:
    idle = described(two_states, running(10, 7, **IDLE))[0]
    told = Description(**{f: getattr(idle, f) for f in idle.__slots__} | {"operating": "loaded"})
    assert two_states.judge(told).operating == "loaded"
    assert two_states.judge(told).p_value < two_states.judge(idle).p_value


def test_the_decision_does_not_depend_on_gain_and_polarity(two_states: Pipeline) -> None:
    sound = running(10, 7, **LOADED)
    plain = [two_states.judge(d) for d in described(two_states, sound)]
    for gain in (10 ** (-11.9 / 20), 3.0, -1.0):
        other = [two_states.judge(d) for d in described(two_states, np.float32(gain) * sound)]
        assert [(r.state, r.operating) for r in other] == [(r.state, r.operating) for r in plain]
        np.testing.assert_allclose([r.score for r in other], [r.score for r in plain], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("windows", [3, 10, 30])
def test_a_new_condition_extends_the_baseline_and_changes_nothing_else(two_states: Pipeline, windows: int) -> None:
    condition = {"shaft_hz": 31.0, "gear_teeth": 17, "level_dbfs": -18.0}
    before = described(two_states, running(20, 9, **condition))
    assert all(two_states.judge(d).state is State.ANOMALOUS for d in before)
    few = described(two_states, running(2.0 * windows, 3, **condition), origin="new.wav")
    baseline = extend.extend(MACHINE, two_states.baseline, few, two_states, "v2", "fast")
    extended = Pipeline(MACHINE, two_states.encoders, baseline)
    after = [extended.judge(d) for d in before]
    assert sum(r.state is State.NORMAL and r.operating == "fast" for r in after) >= 9
    old = described(two_states, running(20, 7, **LOADED))
    assert [extended.judge(d).p_value for d in old] == [two_states.judge(d).p_value for d in old]
    sound = running(20, 9, **condition)
    faulty = mix_at(sound, fault_signal("squeal", len(sound), RATE, np.random.default_rng(0)), 0)
    assert all(extended.judge(d).state is State.ANOMALOUS for d in described(extended, faulty))


@pytest.mark.parametrize("widen", ["smote", "memmixup", "density", "none"])
def test_few_windows_are_made_more_and_hide_no_fault(two_states: Pipeline, widen: str) -> None:
    condition = {"shaft_hz": 31.0, "gear_teeth": 17, "level_dbfs": -18.0}
    few = described(two_states, running(12, 3, **condition), origin="new.wav")
    baseline = extend.extend(MACHINE, two_states.baseline, few, two_states, "v2", "fast", widen)
    extended = Pipeline(MACHINE, two_states.encoders, baseline)
    normal = [extended.judge(d) for d in described(extended, running(20, 9, **condition))]
    assert sum(r.state is State.NORMAL and r.operating == "fast" for r in normal) >= 9
    sound = running(20, 9, **condition)
    faulty = mix_at(sound, fault_signal("squeal", len(sound), RATE, np.random.default_rng(0)), 0)
    assert all(extended.judge(d).state is State.ANOMALOUS for d in described(extended, faulty))
    found = extended.states[-1].detectors[0].bank
    assert (found.kind == "local_density") == (widen == "density")
    kept = {
        "smote": max(6, two_states.baseline.manifest.states[-1].windows // 2),
        "memmixup": 6 + 6 * min(100, len(source_bank(two_states, baseline).memory)),
    }
    assert len(found.arrays()["near_rows"]) == kept.get(widen, 6)


def source_bank(pipeline: Pipeline, extended: Baseline):
    return next(s for s in pipeline.states if s.name == extended.manifest.states[-1].extends).detectors[0].bank


def test_the_normals_of_a_bank_can_be_had_back(two_states: Pipeline) -> None:
    x = np.random.default_rng(0).standard_normal((30, 8)) + 3
    for kind in ("whitened", "euclidean"):
        np.testing.assert_allclose(bank.fit(kind, x).normals(), x, atol=1e-3)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(bank.fit("cosine", x).normals(), unit, atol=1e-6)


def test_too_few_windows_and_a_name_in_use_are_refused(two_states: Pipeline) -> None:
    few = described(two_states, running(4, 3, **IDLE))
    with pytest.raises(CalibrationError, match="at least 3 are needed"):
        extend.extend(MACHINE, two_states.baseline, few, two_states, "v2", "fast")
    with pytest.raises(CalibrationError, match="already"):
        extend.extend(MACHINE, two_states.baseline, few * 2, two_states, "v2", "idle")


def test_a_state_can_be_renamed(two_states: Pipeline) -> None:
    renamed = extend.rename_state(two_states.baseline, "loaded", "filling", "v2")
    pipeline = Pipeline(MACHINE, two_states.encoders, renamed)
    assert [s.name for s in pipeline.states] == ["idle", "filling"]
    with pytest.raises(CalibrationError, match="idle, loaded"):
        extend.rename_state(two_states.baseline, "nothing", "x", "v2")


def test_windows_that_were_listened_to_can_be_left_out() -> None:
    bare = open_pipeline(MACHINE, None)
    normal = described(bare, running(40, 1, **IDLE), origin="day.wav")
    baseline = calibrate.build(MACHINE, normal, bare, "v1", exclude={normal[2].ref})
    assert baseline.manifest.report.windows == 19
    assert baseline.manifest.report.left_out == [LeftOut(window=normal[2].ref, causes=(Cause.EXCLUDED,))]


@pytest.mark.parametrize(("window_s", "hop_s"), [(2.0, 2.0), (4.0, 4.0), (5.0, 2.5), (10.0, 5.0)])
def test_the_compressors_three_states_are_found(shared_dir: Path, window_s: float, hop_s: float) -> None:
    machine = config.Machine(id="c", source=config.StdinSource(rate_hz=48_000), window_s=window_s, hop_s=hop_s)
    bare = open_pipeline(machine, None)
    found: list[Description] = []
    for folder in ("off", "rest", "run"):
        paths = sorted((shared_dir / "data" / "compressor" / folder).glob("*.flac"))
        for day in sorted({p.name[:8] for p in paths}):
            clips = [soundfile.read(p, dtype="float32")[0] for p in paths if p.name.startswith(day)]
            found += described(bare, np.concatenate(clips), f"{folder}/{day}.flac", 48_000)
    found = [d for d in found if d.quality.assessable]
    session = sessions([0.0] * len(found), [d.origin for d in found])
    levels = np.array([d.quality.level_dbfs for d in found])
    label = states.discover(
        [d.embeddings["logmel"] for d in found], levels, session, hop_s, math.ceil(window_s / hop_s)
    )
    names = states.names([float(np.median(levels[label == s])) for s in range(label.max() + 1)])
    assert names == ["off", "idle", "loaded"]
    folders = {"off": "off", "idle": "rest", "loaded": "run"}
    agreement = np.mean([folders[names[s]] == d.origin.split("/")[0] for s, d in zip(label, found, strict=True)])
    assert agreement >= 0.98
