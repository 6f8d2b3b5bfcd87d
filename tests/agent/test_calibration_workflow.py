"""Further states, outliers that are left out, states that are told or confirmed: offline and in the daemon's parts."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.calibration import windows as described
from asd_agent.calibration import workflow
from asd_agent.calibration.build import build
from asd_agent.calibration.report import place
from asd_agent.calibration.windows import CalibrationWindows
from asd_agent.calibration.workflow import CalibrationClips, CalibrationOptions
from asd_agent.capture import SourceStatus
from asd_agent.capture.simulate import SimulatedMachine
from asd_agent.cli import main
from asd_agent.cli.states import moment
from asd_agent.decide.drift import DriftState
from asd_agent.decide.reason import when
from asd_agent.errors import BaselineError, CalibrationError, UsageError
from asd_agent.scoring.pipeline import Reported, open_pipeline
from asd_agent.service import memory_file
from asd_agent.service.active import KEEP_S, pipeline_maker
from asd_agent.service.commands import Commands
from asd_agent.service.machine import Machine
from asd_agent.service.reported import ReportedState, parsed
from asd_agent.service.unknown_state import KNOWN_AFTER
from asd_agent.store import Store
from asd_agent.types import (
    AlarmEvent,
    AlarmState,
    Block,
    Cause,
    Description,
    EventKind,
    Level,
    Quality,
    State,
    Transient,
    Window,
    WindowRef,
)
from asd_agent.windowing.signal_chain import Sampler, compare, fingerprint, floors
from asd_agent.windowing.windower import Windower

RATE = 16_000
MACHINE = config.Machine(id="m", source=config.StdinSource(rate_hz=RATE), window_s=2.0, hop_s=2.0)
USUAL = {"shaft_hz": 24.9, "gear_teeth": 23, "level_dbfs": -24.0}
DELIVERING = SourceStatus(available=True, detail="delivering")
FAST = {"shaft_hz": 31.0, "gear_teeth": 17, "level_dbfs": -18.0}


def running(seconds: float, seed: int, **more: float) -> np.ndarray:
    source = config.SimulatedSource(rate_hz=RATE, seed=seed, **more)
    return SimulatedMachine(source).take(round(seconds * RATE))


def windows(sound: np.ndarray, rates, origin: str = "", utc_s: float = 1e9) -> list[Window]:
    block = Block(sound[:, None], RATE, start_frame=0, utc_s=utc_s, monotonic_s=0.0, origin=origin, last=True)
    cut = Windower(RATE, MACHINE.window_s, MACHINE.hop_s, rates).push(block, 0)
    return [replace(w, monotonic_s=time.monotonic()) for w in cut]


class Sink:
    def __init__(self) -> None:
        self.results: list = []

    def introduce(self, monitor, state) -> None: ...
    def transitions(self, monitor, events, state) -> None: ...
    def received(self, *_) -> None: ...

    def scored(self, monitor, step, events, state) -> None:
        self.results.append(step.result)


@pytest.fixture(scope="module")
def baseline():
    bare = open_pipeline(MACHINE, None)
    sampler = Sampler(15.0)
    found = [sampler.add(w, bare.describe(w)) for w in windows(running(80, 1, **USUAL), bare.rates)]
    return build(MACHINE, found, bare, "20260101T000000Z")


def monitored(machine: config.Machine, baseline, folder: Path) -> Machine:
    store = BaselineStore(folder, "m")
    if not store.versions():
        store.write(baseline)
        store.promote()
    return Machine(machine, folder, pipeline_maker(machine), AlarmState(), Sink(), lambda: True)


@pytest.fixture
def monitor(baseline, tmp_path) -> Machine:
    return monitored(MACHINE, baseline, tmp_path)


def hear(monitor: Machine, sound: np.ndarray, utc_s: float = 1e9) -> None:
    for window in windows(sound, monitor.active.pipeline.rates, utc_s=utc_s):
        monitor.score(window)


class Daemon:
    changing = contextlib.nullcontext()

    def __init__(self, monitor: Machine) -> None:
        self._monitor = monitor

    def machine(self, machine: str) -> Machine:
        return self._monitor

    def status(self):
        return {}


# -- an unknown state, confirmed by one command


def test_what_raised_an_alarm_becomes_normal_only_by_an_explicit_word(monitor, tmp_path):
    ask = Commands(Daemon(monitor))
    hear(monitor, running(2.0 * KNOWN_AFTER, 3, **FAST), utc_s=1e9)
    raised = AlarmEvent(
        id="e1", alarm_id="0123456789", machine="m", kind=EventKind.RAISED, level=Level.ALERT, utc_s=1e9 + 6,
        time_synced=True, reason="2-3 kHz louder",
    )  # fmt: skip
    with Store(tmp_path) as store:
        store.commit_events([raised], AlarmState(), [])
    with pytest.raises(CalibrationError, match=r"alarm 01234567 \(2-3 kHz louder\).*--despite-alarm"):
        ask("extend", {"machine": "m", "name": "fast"})
    assert [s.name for s in monitor.active.pipeline.states] == ["running"]
    assert "confirmed as the state 'fast'" in ask("extend", {"machine": "m", "name": "fast", "despite_alarm": True})


def test_an_unknown_state_is_told_and_becomes_known_only_by_a_command(monitor):
    ask = Commands(Daemon(monitor))
    hear(monitor, running(10, 3, **USUAL))
    with pytest.raises(CalibrationError, match="no unknown operating state now"):
        ask("extend", {"machine": "m"})
    hear(monitor, running(2.0 * (KNOWN_AFTER - 1), 3, **FAST))
    with pytest.raises(
        CalibrationError, match=f"{KNOWN_AFTER - 1} windows .* so far, {KNOWN_AFTER} are needed: 2 s more"
    ):
        ask("extend", {"machine": "m"})
    assert monitor.active.unknown_state == ""
    hear(monitor, running(4, 4, **FAST))
    assert f"new operating state since {when(1e9)}, {KNOWN_AFTER + 1} windows" == monitor.active.unknown_state
    assert monitor.baselines.versions() == ["20260101T000000Z"]  # never by itself
    answer = ask("extend", {"machine": "m", "name": "fast"})
    assert f"{KNOWN_AFTER + 1} windows confirmed as the state 'fast'" in answer
    assert [s.name for s in monitor.active.pipeline.states] == ["running", "fast"]
    monitor.active._sink.results.clear()
    hear(monitor, running(20, 5, **FAST))
    hear(monitor, running(20, 6, **USUAL))
    assert [r.operating for r in monitor.active._sink.results] == ["fast"] * 10 + ["running"] * 10
    assert sum(r.state is State.NORMAL for r in monitor.active._sink.results) >= 18
    assert monitor.active.unknown_state == ""
    monitor.active.rollback()
    assert [s.name for s in monitor.active.pipeline.states] == ["running"]


def test_an_unknown_state_that_has_gone_is_confirmed_by_its_time(monitor):
    ask = Commands(Daemon(monitor))
    hear(monitor, running(40, 3, **FAST), utc_s=1e9)
    hear(monitor, running(10, 3, **USUAL), utc_s=1e9 + 60)
    with pytest.raises(CalibrationError, match=r"20 deviating windows are kept, .* give --since or --last"):
        ask("extend", {"machine": "m"})
    with pytest.raises(UsageError, match="one of since"):
        ask("extend", {"machine": "m", "since": "1970-01-01T00:00:01Z", "last_s": 2.0})
    assert "a candidate" in ask("extend", {"machine": "m", "since": "2001-09-09T01:46:40Z", "promote": False})
    assert monitor.active.version == "20260101T000000Z"
    assert monitor.baselines.pointers().candidate == monitor.baselines.versions()[-1]


def test_states_can_be_named_in_the_daemon(monitor):
    ask = Commands(Daemon(monitor))
    assert "is called 'pumping' now" in ask("rename_state", {"machine": "m", "old": "running", "new": "pumping"})
    hear(monitor, running(4, 3, **USUAL))
    assert monitor.last.operating == "pumping"
    for old, new in (("running", "x"), ("pumping", "a/b"), ("pumping", ""), ("pumping", "pumping")):
        with pytest.raises(CalibrationError, match="pumping"):
            ask("rename_state", {"machine": "m", "old": old, "new": new})


# -- the state from a topic


TOLD = msgspec.structs.replace(MACHINE, operating=config.Operating(topic="plc/state", holds_s=100.0, settle_s=1.0))


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (b"loaded", "loaded"), (b'"loaded"', "loaded"), (b'{"state": "idle", "x": 1}', "idle"), (b" off\n", "off"),
        (b"3", "3"), (b"", None), (b"true", None), (b"{}", None), (b"a/b", None), (b"x" * 61, None), (b"[1]", None),
    ],
)  # fmt: skip
def test_what_a_controller_says(payload, name):
    assert parsed(payload) == name


def at(end_s: float) -> Window:
    return Window(np.zeros(2 * RATE, np.float32), RATE, {}, 0, 0, 0.0, end_s)


def test_windows_at_a_change_have_no_state_and_old_news_say_nothing():
    told = ReportedState(TOLD)
    assert told.of(at(0.0)) == ("", False)
    told.report(b"idle", 100.0)
    told.report(b"loaded", 150.0)
    told.report(b"loaded", 160.0)
    assert told.of(at(110.0)) == ("idle", False)
    assert [told.of(at(t))[1] for t in (148.9, 149.1, 150.0, 152.9, 153.1)] == [False, True, True, True, False]
    assert told.of(at(155.0)) == ("loaded", False)
    assert told.of(at(259.0)) == ("loaded", False)
    assert told.of(at(261.0)) == ("", False)


@given(st.lists(st.tuples(st.floats(0.1, 30), st.sampled_from(["a", "b"])), min_size=1, max_size=30), st.floats(0, 300))
def test_a_window_with_a_state_saw_only_that_state(told_at, end_s):
    state, now, told = ReportedState(TOLD), 0.0, []
    for step, name in told_at:
        now += step
        told.append((now, name))
        state.report(name.encode(), now)
    name, changing = state.of(at(end_s))
    during = {n for t, n in told if end_s - 2 <= t <= end_s}
    if name:
        assert not changing
        assert during <= {name}


def test_a_calibration_uses_what_is_told_and_reports_what_is_not(tmp_path):
    bare = open_pipeline(TOLD, None)
    both = np.concatenate([running(40, 1, **USUAL), running(40, 1, **FAST)])
    found = [
        bare.describe(w, Reported(operating="slow" if i < 18 else "" if i < 20 else "fast", changing=i in (20, 21)))
        for i, w in enumerate(windows(both, bare.rates))
    ]
    baseline = build(TOLD, found, bare, "v")
    assert {s.name: s.windows for s in baseline.manifest.states} == {"slow": 18, "fast": 18}
    assert baseline.manifest.report.excluded == {
        Cause.STATE_NOT_REPORTED: 2,
        Cause.STATE_CHANGING: 2,
    }
    assert any("2 operating states" in fact for fact in baseline.manifest.report.facts)


def test_a_told_state_that_is_new_is_not_judged_until_it_is_confirmed(baseline, tmp_path):
    renamed = msgspec.structs.replace(TOLD, operating=config.Operating(topic="plc/state", settle_s=0.0))
    told = msgspec.structs.replace(baseline, manifest=msgspec.structs.replace(baseline.manifest, states_reported=True))
    monitor = monitored(renamed, told, tmp_path)
    assert "no operating state is reported on plc/state" in str(monitor.health(DELIVERING))
    monitor.reported.operating.report(b"running", time.monotonic() - 50)
    hear(monitor, running(10, 3, **USUAL))
    assert {r.state for r in monitor.active._sink.results} == {State.NORMAL}
    monitor.reported.operating.report(b"purging", time.monotonic() - 20)
    hear(monitor, running(2.0 * KNOWN_AFTER, 3, **FAST))
    assert {r.state for r in monitor.active._sink.results[-KNOWN_AFTER:]} == {State.NOT_ASSESSABLE}
    assert "new operating state 'purging' since" in monitor.active.unknown_state
    with pytest.raises(CalibrationError, match="reported as 'purging'"):
        monitor.calibrator.extend("other", None, True)
    assert "the state 'purging'" in monitor.calibrator.extend("", None, True)
    hear(monitor, running(10, 5, **FAST))
    assert (monitor.last.operating, monitor.last.state) == ("purging", State.NORMAL)


def test_states_found_in_the_sound_are_judged_by_the_sound_whatever_is_told(baseline, tmp_path):
    monitor = monitored(TOLD, baseline, tmp_path)
    monitor.reported.operating.report(b"RUN", time.monotonic() - 50)
    hear(monitor, running(10, 3, **USUAL))
    assert {(r.state, r.operating) for r in monitor.active._sink.results} == {(State.NORMAL, "running")}
    assert "no operating state" not in str(monitor.health(DELIVERING))


# -- outliers


@pytest.fixture
def site(tmp_path) -> Path:
    for name, sound in (("normal", running(80, 1, **USUAL)), ("fast", running(12, 3, **FAST))):
        soundfile.write(tmp_path / f"{name}.wav", sound, RATE)
    odd = running(80, 1, **USUAL)
    odd[20 * RATE : 22 * RATE] += running(2, 9, **(FAST | {"level_dbfs": -20.0}))
    soundfile.write(tmp_path / "odd.wav", odd, RATE)
    (tmp_path / "agent.yaml").write_text(
        f"agent: {{id: a, state_dir: {tmp_path}/state}}\n"
        "machines: [{id: m, source: {kind: stdin, rate_hz: 16000}, window_s: 2, hop_s: 2}]\n"
    )
    return tmp_path


def test_outliers_have_numbers_and_can_be_left_out(site, capsys):
    calibrate = ["calibrate", "-v", "-c", str(site / "agent.yaml"), "m"]
    assert main([*calibrate, "--exclude", "1"]) == 1
    assert "calibrate again" in capsys.readouterr().err
    assert main([*calibrate, "--from", str(site / "odd.wav")]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  1: ")]
    assert "odd.wav 20.0-22.0 s: score" in shown[0]
    assert main([*calibrate, "--exclude", "9"]) == 1
    assert "no outlier 9" in capsys.readouterr().err
    (site / "odd.wav").unlink()  # nothing is read again
    assert main([*calibrate, "--exclude", "1", "--promote"]) == 0
    out = capsys.readouterr().out
    assert "odd.wav 20.0-22.0 s: excluded by hand" in out
    assert "odd.wav 20.0-22.0 s: score" not in out
    assert main([*calibrate, "--from", "x", "--exclude-outliers"]) == 2
    assert "works on the windows of the last calibration" in capsys.readouterr().err


def test_a_further_state_from_recordings(site, capsys):
    calibrate = ["calibrate", "-v", "-c", str(site / "agent.yaml"), "m"]
    fast = ["--from", str(site / "fast.wav"), "--extend", "--name", "fast", "--promote"]
    assert main([*calibrate, *fast]) == 1
    assert "no active baseline to extend" in capsys.readouterr().err
    assert main([*calibrate, "--from", str(site / "normal.wav"), "--promote"]) == 0
    assert main([*calibrate, *fast]) == 0
    assert "extended by the state fast: 6 windows, distances measured as in running" in capsys.readouterr().out
    assert main([*calibrate, *fast]) == 1
    assert "already" in capsys.readouterr().err
    assert main([*calibrate, "--from", "x", "--name", "fast"]) == 2
    manage = ["baseline", "rename", "-c", str(site / "agent.yaml"), "m"]
    assert main([*manage, "fast", "turbo"]) == 0
    assert main([*manage, "fast", "turbo"]) == 1
    assert "there is no state 'fast', the states are running, turbo" in capsys.readouterr().err
    assert main(["baseline", "show", "-c", str(site / "agent.yaml"), "m"]) == 0
    shown = capsys.readouterr().out
    assert "operating states: running (40 windows); turbo (6 windows), measured as running" in shown
    assert main(["baseline", "extend", "-c", str(site / "agent.yaml"), "m"]) == 1
    assert "only the daemon has the windows of the unknown state" in capsys.readouterr().err


def test_the_odd_windows_of_a_live_calibration_can_be_listened_to(tmp_path):
    bare, store = open_pipeline(MACHINE, None), BaselineStore(tmp_path, "m")
    sound = running(100, 1, **USUAL)
    sound[60 * RATE : 62 * RATE] += running(2, 9, **(FAST | {"level_dbfs": -20.0}))
    clips, found = CalibrationClips(store.folder), []
    store.prepare()
    for window in windows(sound, bare.rates):
        found.append(bare.describe(window))
        clips.keep(window, found[-1])
    report = workflow.calibrate(bare, store, found, CalibrationOptions(), clips).manifest.report
    assert place(report.outliers[0].window) == f"live at {when(1e9 + 60, seconds=True)}"
    clip, rate_hz = soundfile.read(tmp_path / report.outliers[0].clip, dtype="float32")
    assert rate_hz == RATE
    np.testing.assert_allclose(clip, sound[60 * RATE : 62 * RATE], atol=1e-4)
    kept = sorted(p.name for p in (store.folder / "outliers").rglob("*.flac"))
    assert len(kept) == sum(bool(outlier.clip) for outlier in report.outliers)


EXCLUDED = WindowRef("day.wav", 0.1, 2.0, 1.7e9 + 0.1)


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.text(max_size=5),
            st.floats(0, 1e6),
            st.dictionaries(st.sampled_from("xyz"), st.floats(-9, 9)),
        ),
        max_size=8,
    )
)
def test_described_windows_survive_the_disk(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("kept")
    made = tuple(
        Description(
            index=i, start_s=start_s, duration_s=2.0, utc_s=start_s, origin=origin,
            quality=Quality(() if heard else (Cause.GAP,), -20.0, 0.5, 0.0, 0.0),
            embeddings={"logmel": np.full(3, start_s, np.float32)} if heard else {},
            indicators=indicators if heard else {},
            transient=Transient(1.0, 2.0) if heard else None,
            fingerprint=fingerprint(np.ones(RATE, np.float32), RATE) if heard and i == 0 else None,
        )
        for i, (heard, origin, start_s, indicators) in enumerate(drawn)
    )  # fmt: skip
    described.keep(folder, CalibrationWindows("v", made, frozenset({EXCLUDED})))
    back = described.load(folder)
    assert (back.version, back.excluded) == ("v", frozenset({EXCLUDED}))
    for before, after in zip(made, back.windows, strict=True):
        assert replace(before, embeddings={}) == replace(after, embeddings={})
        assert {k: v.tolist() for k, v in before.embeddings.items()} == {
            k: v.tolist() for k, v in after.embeddings.items()
        }


def test_damaged_windows_are_one_line(tmp_path):
    (tmp_path / described.FILE).write_bytes(b"no zip")
    with pytest.raises(BaselineError, match="calibrate again"):
        described.load(tmp_path)


# -- drift over restarts


def test_drift_goes_on_after_a_restart_on_the_same_baseline_only(baseline, monitor, tmp_path, monkeypatch):
    hear(monitor, running(20, 3, **USUAL))
    before = monitor.active._decision.memory.drifts
    assert before["running"].weight > 0
    now = time.monotonic()
    monkeypatch.setattr("asd_agent.service.active.time.monotonic", lambda: now + KEEP_S + 1)
    monitor.tick()
    assert monitored(MACHINE, baseline, tmp_path).active._decision.memory.drifts == before
    assert memory_file.load(monitor.baselines.folder, "another") is None
    (monitor.baselines.folder / memory_file.FILE).write_text("{")
    assert monitored(MACHINE, baseline, tmp_path).active._decision.memory.drifts == {"running": DriftState()}


# -- the fingerprint


@settings(deadline=None)
@given(st.floats(-30, 30), st.sampled_from([1, -1]), st.integers(0, 9))
def test_gain_and_polarity_move_all_bands_alike_and_are_no_edge(gain_db, polarity, seed):
    sound = running(2, seed, **USUAL)
    normal = floors([("running", [described_by(sound)])])["running"]
    found = compare(fingerprint(np.float32(polarity * 10 ** (gain_db / 20)) * sound, RATE), normal, RATE / 2)
    assert found.gain_db == pytest.approx(gain_db, abs=0.05)
    assert found.lost_hz is None


def described_by(sound: np.ndarray) -> Description:
    return Description(
        index=0, start_s=0.0, duration_s=2.0, utc_s=0.0, origin="", quality=Quality((), -20.0, 0.5, 0.0, 0.0),
        embeddings={}, fingerprint=fingerprint(sound, RATE),
    )  # fmt: skip


def test_only_some_windows_are_looked_at():
    sampler, bare = Sampler(10.0), open_pipeline(MACHINE, None)
    for origin in ("a", "b"):
        cut = windows(running(24, 1, **USUAL), bare.rates, origin)
        fresh = [
            sampler.add(w, replace(described_by(w.samples), fingerprint=None)).fingerprint is not None for w in cut
        ]
        assert fresh == [i % 5 == 0 for i in range(12)]


# -- words


def test_moments():
    noon = 1_767_268_800.0  # 2026-01-01 12:00 UTC
    assert moment("11:30", noon) == noon - 1800
    assert moment("12:30:10", noon) == noon + 1810 - 86_400  # yesterday's
    assert (
        moment("2026-01-01 12:00", 0)
        == moment("2026-01-01T12:00:00.5Z", 0) - 0.5
        == moment("2026-01-01 12:00 UTC", 0)
        == noon
    )
    with pytest.raises(UsageError, match="is not a time"):
        moment("soon")
