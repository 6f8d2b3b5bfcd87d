"""The daemon's parts without its processes: one machine, its calibration, its requests, its health."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time

import msgspec
import numpy as np
import pytest
import soundfile

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.calibration.build import build
from asd_agent.calibration.gather import describe_recordings
from asd_agent.capture import SourceStatus
from asd_agent.capture.simulate import machine_blocks
from asd_agent.errors import AsdError, BaselineError, CalibrationError, SourceError, UsageError
from asd_agent.scoring.pipeline import open_pipeline
from asd_agent.service import sink as service_sink
from asd_agent.service.active import pipeline_maker
from asd_agent.service.calibration_job import CalibrationJob
from asd_agent.service.commands import Commands
from asd_agent.service.health import ChainHealth, worst
from asd_agent.service.machine import Machine
from asd_agent.service.systemd import Progress, watchdog_s
from asd_agent.service.window_queue import QUEUE
from asd_agent.store import Store
from asd_agent.types import AlarmState, Block, ChainStatus, Description, Quality, State, WindowResult
from listening import DELIVERING, status_of

RATE = 16_000


def sound(seconds: float, *faults: config.Fault, seed: int = 0) -> np.ndarray:
    source = config.SimulatedSource(seed=seed, duration_s=seconds, pace="fast", faults=list(faults))
    return np.concatenate([block.samples for block in machine_blocks(source)])


def blocks(samples: np.ndarray, rate_hz: int = RATE, gap: bool = False) -> list[Block]:
    """[frames, channels] -> blocks of half a second."""
    size = rate_hz // 2
    return [
        Block(samples[at : at + size], rate_hz, at, time.time() + at / rate_hz, time.monotonic(), gap and at == 0)
        for at in range(0, len(samples), size)
    ]


@pytest.fixture(scope="module")
def machine():
    alarm = config.Alarm(window_votes="3/5")
    return config.Machine(
        id="m", source=config.StdinSource(rate_hz=RATE, channels=2), window_s=1.0, hop_s=0.5, alarm=alarm
    )


@pytest.fixture(scope="module")
def baseline(machine, tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "normal.wav"
    soundfile.write(path, sound(20), RATE)
    pipeline = open_pipeline(machine, None)
    return build(machine, describe_recordings(pipeline, machine, [path]), pipeline, "20260101T000000Z")


class Sink:
    def __init__(self):
        self.results, self.events, self.states, self.blocks = [], [], [], 0

    def introduce(self, monitor, state):
        self.states.append(state)

    def scored(self, monitor, step, events, state):
        self.results.append(step.result)
        if events:
            self.transitions(monitor, events, state)

    def transitions(self, monitor, events, state):
        self.events += events
        self.states.append(state)

    def received(self, monitor, block, heard, begun):
        self.blocks += 1


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def monitor(machine, baseline, sink, tmp_path):
    store = BaselineStore(tmp_path, "m")
    store.write(baseline)
    store.promote()
    return Machine(machine, tmp_path, pipeline_maker(machine), AlarmState(), sink, lambda: True)


def drain(monitor: Machine) -> None:
    while (window := monitor.windows.take()) is not None:
        monitor.score(window)


def hear(monitor: Machine, samples: np.ndarray) -> None:
    for block in blocks(samples):
        monitor.offer(block)
        drain(monitor)


FAULT = config.Fault(kind="bearing", level_db=0)


def test_the_daemon_loads_nothing_that_only_some_machines_need():
    code = "import sys, asd_agent.service.daemon; print(sorted({'scipy', 'pywt', 'torch', 'amqtt'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_imported_daemon_is_small():
    code = "import asd_agent.service.daemon; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 75 * 1024  # KiB


# -- one machine


def test_windows_become_results_and_transitions(monitor, sink):
    hear(monitor, sound(4, seed=1))
    assert [r.state for r in sink.results] == [State.NORMAL] * 7
    hear(monitor, sound(6, FAULT, seed=2))
    assert "raised" in [event.kind for event in sink.events]
    assert sink.states[-1].alarm_id == monitor.active.alarm_state.alarm_id != ""
    status = status_of(monitor)
    msgspec.json.encode(status)
    assert (status.health.windows_scored, status.alarm.level) == (len(sink.results), "danger")
    assert status.score.score > status.score.score_limit


def test_what_happened_last_is_told_last(monitor, sink):
    """Transitions of the worker and of people reach the sink in the order in which the alarm made them."""
    gate = threading.Event()
    hear(monitor, sound(6, FAULT, seed=2))
    plain = sink.transitions

    def slow(monitor, events, state):
        gate.set()
        time.sleep(0.05)  # the disk
        plain(monitor, events, state)

    sink.transitions = slow
    shelving = threading.Thread(target=lambda: monitor.alarm.shelve(time.time() + 60, "eva", ""))
    shelving.start()
    gate.wait()
    monitor.alarm.acknowledge("eva", "")
    shelving.join()
    assert sink.states[-1] == monitor.active.alarm_state
    assert [e.kind for e in sink.events][-2:] == ["shelved", "acknowledged"]


def test_a_full_queue_drops_the_oldest_and_health_says_so(monitor):
    for block in blocks(sound(10, seed=1)):
        monitor.offer(block)
    assert monitor.windows.dropped == 19 - QUEUE
    window = monitor.windows.take()
    assert window is not None
    assert window.index == monitor.windows.dropped
    assert (ChainStatus.MAINTENANCE_REQUIRED, "11 windows dropped: this host is too slow") in monitor.health(DELIVERING)


def test_a_source_below_the_bundle_s_rate_is_a_failure(monitor, sink):
    for block in blocks(sound(2)[::2], RATE // 2):
        monitor.offer(block)
    assert sink.blocks == 0
    assert monitor.windows.take() is None
    status = status_of(monitor)
    assert not status.health.source_available
    assert status.health.status == "failure"
    assert "8000 Hz" in status.health.reasons[0]


def test_a_channel_that_is_not_there_is_a_failure(machine, baseline, sink, tmp_path):
    right = msgspec.structs.replace(machine, source=config.StdinSource(rate_hz=RATE, channels=2, channel=1))
    monitor = Machine(right, tmp_path, pipeline_maker(right), AlarmState(), sink, lambda: True)
    monitor.offer(blocks(sound(2))[0])
    assert "channel 1 wanted" in status_of(monitor).health.reasons[0]


def test_without_a_baseline_nothing_is_judged(machine, sink, tmp_path):
    monitor = Machine(machine, tmp_path, pipeline_maker(machine), AlarmState(), sink, lambda: True)
    hear(monitor, sound(4, FAULT))
    assert {r.state for r in sink.results} == {State.LEARNING}
    status = status_of(monitor)
    assert (status.score.score, status.alarm.level, status.health.status) == (None, "unknown", "function_check")


def test_a_baseline_of_another_bundle_is_never_made_active(monitor, baseline, tmp_path):
    other = msgspec.structs.replace(
        baseline,
        manifest=msgspec.structs.replace(baseline.manifest, version="20260202T000000Z", bundles={"default": "0" * 64}),
    )
    monitor.baselines.write(other)
    with pytest.raises(BaselineError, match="was made with the bundle"):
        monitor.active.promote(None)
    assert monitor.baselines.pointers().active == baseline.manifest.version == monitor.active.version
    with pytest.raises(BaselineError, match="no baseline"):
        monitor.active.promote("../../other")
    hear(monitor, sound(2))
    assert monitor.last.state is State.NORMAL


def test_a_rollback_to_a_damaged_baseline_keeps_the_active_one(monitor, baseline):
    second = msgspec.structs.replace(
        baseline, manifest=msgspec.structs.replace(baseline.manifest, version="20260202T000000Z")
    )
    folder = monitor.baselines.write(second)
    monitor.active.promote(None)
    (folder.parent / baseline.manifest.version / "arrays.npz").write_bytes(b"nonsense")
    with pytest.raises(BaselineError, match="checksum"):
        monitor.active.rollback()
    assert monitor.active.version == "20260202T000000Z"
    assert not monitor.active.fault


# -- calibration


def live_job(monitor: Machine, duration_s: float, promote: bool = False) -> None:
    monitor.calibrator.calibrate(duration_s, promote)


def finished(monitor: Machine) -> dict[str, object]:
    deadline = time.monotonic() + 30
    while monitor.calibrator.progress().phase in ("listening", "fitting"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return monitor.calibrator.progress()


def test_a_live_calibration_goes_beside_the_scoring(monitor, sink, baseline):
    live_job(monitor, 10.0, promote=True)
    assert (ChainStatus.FUNCTION_CHECK, "calibrating") in monitor.health(DELIVERING)
    hear(monitor, sound(10, seed=5))
    progress = finished(monitor)
    assert progress.phase == "done", progress
    assert progress.report.windows == 19
    assert monitor.active.version == progress.version != baseline.manifest.version
    assert monitor.baselines.pointers().previous == baseline.manifest.version
    assert len(sink.results) == 19


def test_one_calibration_at_a_time_and_cancelling(monitor, baseline):
    with pytest.raises(CalibrationError, match="no calibration has been started"):
        monitor.calibrator.progress()
    with pytest.raises(CalibrationError, match="no calibration is running"):
        monitor.calibrator.cancel()
    live_job(monitor, 60.0)
    with pytest.raises(CalibrationError, match="already running"):
        live_job(monitor, 60.0)
    monitor.calibrator.cancel()
    assert monitor.calibrator.progress().phase == "cancelled"
    live_job(monitor, 2.0)
    hear(monitor, sound(3))
    assert "at least 6 are needed" in finished(monitor).error
    assert monitor.baselines.versions() == [baseline.manifest.version]


def test_too_late_to_cancel_is_said(machine):
    fitting = threading.Event()
    job = CalibrationJob(lambda descriptions: fitting.wait(10), duration_s=1.0)
    job.see(described(0.0))
    assert job.progress().phase == "fitting"
    assert not job.cancel()
    fitting.set()


def test_a_broken_calibration_names_its_cause():
    def broken(descriptions):
        raise ZeroDivisionError("oops")

    job = CalibrationJob(broken, duration_s=1.0)
    job.see(described(0.0))
    deadline = time.monotonic() + 10
    while job.running:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert "internal error: ZeroDivisionError" in job.progress().error


def described(start_s: float, utc_s: float = 0.0, duration_s: float = 1.0) -> Description:
    return Description(
        index=0,
        start_s=start_s,
        duration_s=duration_s,
        utc_s=utc_s,
        origin="",
        quality=Quality((), -20.0, 0.5, 0.0, 0.0),
        embeddings={},
    )


def test_a_clock_that_jumps_neither_ends_nor_prolongs_a_calibration():
    job = CalibrationJob(lambda descriptions: None, duration_s=10.0)
    for i, utc_s in enumerate([0.0, 1e9, 1e9, 5.0]):
        job.see(described(i * 0.5, utc_s))
    assert job.progress().done == pytest.approx(2.5 / 10)
    job.see(described(0.0, 6.0))  # the source came anew
    assert job.progress().done == pytest.approx(3.5 / 10)


def test_a_source_that_delivers_nothing_ends_a_calibration(monkeypatch):
    job = CalibrationJob(lambda descriptions: None, duration_s=10.0)
    now = time.monotonic()
    monkeypatch.setattr("asd_agent.service.calibration_job.time.monotonic", lambda: now + 91.0)
    job.tick()
    assert job.progress().phase == "failed"
    assert "did not deliver" in job.progress().error


# -- to store and broker


def test_events_that_belong_together_are_committed_together(tmp_path, monitor):
    """A state that tells of an alarm must never be on disk without the alarm's event, nor between two of them."""
    settings = config.Config(
        agent=config.Agent(id="a", state_dir=str(tmp_path / "state")),
        machines=[monitor.settings],
        mqtt=config.Mqtt(url="mqtt://127.0.0.1:1"),
    )
    with Store(settings.state_dir) as store:
        commits = []
        plain = store.commit_events
        store.commit_events = lambda *args: commits.append(args) or plain(*args)
        outlet = service_sink.Sink(settings, store, lambda verb, args: None, lambda topic, payload: None)
        monitor.active._sink = outlet
        hear(monitor, sound(3, FAULT, seed=2))
        outlet.close()
        together = [[event.kind for event in events] for events, _, _ in commits]
        assert ["assessable", "raised"] in together
        assert store.states()["m"].sequence == len(store.events()) == sum(map(len, together))
        topics = [item.message.topic.rsplit("/", 1)[-1] for item in store.outbox.pending(limit=50)]
        assert topics.count("event") == len(store.events())
        assert topics.count("alarm") == 1


# -- requests


class FakeDaemon:
    def __init__(self, monitor):
        self._monitor = monitor
        self.changing = contextlib.nullcontext()

    def machine(self, name):
        if name != "m":
            raise UsageError(f"there is no machine {name!r}")
        return self._monitor

    def status(self):
        return {"machines": []}


@pytest.mark.parametrize(
    ("verb", "args", "words"),
    [
        ("dance", {}, "unknown verb 'dance'"),
        ("ack", {}, "machine"),
        ("ack", {"machine": "x"}, "no machine 'x'"),
        ("ack", {"machine": "m"}, "no active or latched alarm"),
        ("ack", {"machine": 3}, "Expected `str`"),
        ("ack", {"machine": "m", "colour": "red"}, "colour"),
        ("shelve", {"machine": "m"}, "give one of"),
        ("shelve", {"machine": "m", "minutes": 1, "until": "2030-01-01T00:00:00Z"}, "give one of"),
        ("shelve", {"machine": "m", "minutes": -1}, "minutes"),
        ("shelve", {"machine": "m", "until": "1970-01-01T00:00:05Z"}, "passed already"),
        ("unshelve", {"machine": "m"}, "not shelved"),
        ("calibrate", {"machine": "m"}, "give one of"),
        ("calibrate", {"machine": "m", "duration_s": 0}, "duration_s"),
        ("promote", {"machine": "m"}, "no candidate"),
        ("promote", {"machine": "m", "version": "../x"}, "no baseline '../x'"),
        ("rollback", {"machine": "m"}, "no previous"),
        ("calibration", {"machine": "m"}, "no calibration has been started"),
        ("cancel_calibration", {"machine": "m"}, "no calibration is running"),
    ],
)
def test_a_wrong_request_is_one_line(monitor, verb, args, words):
    with pytest.raises(AsdError, match=words) as caught:
        Commands(FakeDaemon(monitor))(verb, args)
    assert "\n" not in str(caught.value)


# -- health and watchdog


def result(state: State = State.NORMAL, level_dbfs: float = -20.0, reasons: tuple[str, ...] = ()) -> WindowResult:
    return WindowResult(
        index=0,
        start_s=0.0,
        duration_s=1.0,
        utc_s=0.0,
        origin="",
        state=state,
        quality=Quality(reasons, level_dbfs, 0.5, 0.0, 0.0),
    )


def findings_of(results, chain=None, source=DELIVERING):
    health = ChainHealth()
    for item in results:
        health.see(item)
    return health.findings(source, chain)


def test_health_of_the_chain(baseline):
    chain = baseline.manifest.chain
    steady = [result(level_dbfs=chain.level_dbfs)] * 12
    assert findings_of(steady, chain) == []
    assert worst([]) is ChainStatus.GOOD
    louder = findings_of([result(level_dbfs=chain.level_high_dbfs + 9)] * 12, chain)
    assert louder[0][0] is ChainStatus.OUT_OF_SPECIFICATION
    assert "9 dB above calibration" in louder[0][1]
    quieter = findings_of([result(level_dbfs=chain.level_low_dbfs - 9)] * 12, chain)
    assert "9 dB below calibration" in quieter[0][1]
    dead = findings_of(steady + [result(State.NOT_ASSESSABLE, -120.0, ("silence",))] * 8, chain)
    assert worst(dead) is ChainStatus.FAILURE
    clipped = findings_of([result(State.NOT_ASSESSABLE, -3.0, ("clipping",))] * 8, chain)
    assert worst(clipped) is ChainStatus.OUT_OF_SPECIFICATION
    gone = findings_of(steady, chain, SourceStatus(available=False, detail="unplugged"))
    assert gone == [(ChainStatus.FAILURE, "source unavailable: unplugged")]


def test_what_does_not_move_is_named(monkeypatch):
    progress = Progress()
    progress.touch("worker")
    progress.touch("capture:m")
    now = time.monotonic()
    monkeypatch.setattr("asd_agent.service.systemd.time.monotonic", lambda: now + 31)
    progress.touch("capture:m")
    assert progress.stuck(30) == ["worker"]
    progress.forget("worker")
    assert progress.stuck(30) == []


@pytest.mark.parametrize(("micros", "seconds"), [("", None), ("0", None), ("x", None), ("30000000", 30.0)])
def test_the_watchdog_s_interval(monkeypatch, micros, seconds):
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", micros)
    assert watchdog_s() == seconds


def test_a_failure_of_one_window_is_forgotten_with_the_next(monitor):
    monitor.scoring_error = "internal error"
    assert worst(monitor.health(DELIVERING)) is ChainStatus.FAILURE
    hear(monitor, sound(2))
    assert worst(monitor.health(DELIVERING)) is ChainStatus.GOOD


def test_a_failed_source_says_why_until_it_delivers(monitor):
    monitor.source_failed(str(SourceError("no such file")))
    assert status_of(monitor).health.reasons == ("no such file",)
    hear(monitor, sound(2))
    assert status_of(monitor).health.reasons == ()
