"""Evidence that can be checked: the score computed again from the clip, refusals, normal sound to compare with."""

from __future__ import annotations

import csv
import io
import shutil
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import yaml

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.calibration import clips
from asd_agent.calibration.build import build
from asd_agent.calibration.gather import describe_recordings
from asd_agent.capture.simulate import machine_blocks
from asd_agent.cli import main
from asd_agent.errors import AsdError, BaselineError, BundleError, StoreError
from asd_agent.evidence import nearest as normals
from asd_agent.evidence.clip import Clip, read_clip
from asd_agent.evidence.replay import Replay, encoders_of, find, replay
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.service.active import pipeline_maker
from asd_agent.service.machine import Machine
from asd_agent.service.sink import Sink
from asd_agent.store import Store
from asd_agent.types import AlarmEvent, AlarmState, Block, EventKind, State
from asd_agent.windowing.recordings import recorded_windows
from asd_agent.windowing.windower import Windower

RATE = 44_100  # the bundle hears 16 kHz
FAULT = config.Fault(kind="bearing", level_db=-12, at_s=16)
VERSION = "20260101T000000Z"


def sound(seconds: float, *faults: config.Fault, seed: int = 0, rate_hz: int = RATE, bits: int = 16) -> np.ndarray:
    """[frames, 1], as a sound card of so many bits gives it."""
    source = config.SimulatedSource(rate_hz=rate_hz, seed=seed, duration_s=seconds, pace="fast", faults=list(faults))
    samples = np.concatenate([block.samples for block in machine_blocks(source)])
    return samples if bits == 32 else (np.rint(samples * 2.0 ** (bits - 1)) / 2.0 ** (bits - 1)).astype(np.float32)


def hear(monitor: Machine, samples: np.ndarray, rate_hz: int = RATE, gap: bool = False, start_frame: int = 0) -> None:
    size = rate_hz // 7
    for at in range(0, len(samples), size):
        block = Block(
            samples[at : at + size], rate_hz, start_frame + at, time.time() + at / rate_hz, time.monotonic(),
            gap=gap and at == 0,
        )  # fmt: skip
        monitor.offer(block)
        while (window := monitor.windows.take()) is not None:
            monitor.score(window)


@pytest.fixture(scope="module")
def machine() -> config.Machine:
    mechanism = config.Mechanism(shaft_hz=24.9)
    return config.Machine(id="m", source=config.StdinSource(rate_hz=RATE), window_s=2.0, hop_s=1.0, mechanism=mechanism)


@pytest.fixture(scope="module")
def box(machine: config.Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated machine that has raised an alarm; agent.yaml beside its state."""
    folder = tmp_path_factory.mktemp("box")
    path = folder / "normal.wav"
    soundfile.write(path, sound(50), RATE, subtype="PCM_16")
    pipeline = open_pipeline(machine, None)
    baselines = BaselineStore(folder / "state", "m")
    baselines.write(build(machine, describe_recordings(pipeline, machine, [path]), pipeline, VERSION))
    baselines.promote()
    settings = config.Config(agent=config.Agent(id="a", state_dir=str(folder / "state")), machines=[machine])
    (folder / "agent.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(settings)))
    with listening(settings) as (monitor, _):
        hear(monitor, sound(7, seed=4))  # another segment before the one of the alarm
        monitor.reported.report_speed(b"1494")
        hear(monitor, sound(26, FAULT, seed=3), gap=True, start_frame=9 * RATE)
        monitor.source_ended()
    return folder


class listening:  # noqa: N801 - a context
    """A monitor with its store and evidence; at the end everything is on disk."""

    def __init__(self, settings: config.Config) -> None:
        self._settings = settings

    def __enter__(self) -> tuple[Machine, Store]:
        (machine,) = self._settings.machines
        state_dir = self._settings.state_dir
        self._store = Store(state_dir)
        self._sink = Sink(self._settings, self._store, lambda *_: None, lambda *_: None)
        return Machine(machine, state_dir, pipeline_maker(machine), AlarmState(), self._sink, lambda: True), self._store

    def __exit__(self, *exc: object) -> None:
        self._sink.close()
        self._store.close()


def alarm(state_dir: Path) -> AlarmEvent:
    with Store.reader(state_dir) as store:
        return next(event for event in store.events() if event.kind is EventKind.RAISED)


@pytest.fixture
def copy(box: Path, tmp_path: Path) -> Path:
    """The box, to be spoilt."""
    shutil.copytree(box, tmp_path / "box")
    text = (box / "agent.yaml").read_text().replace(str(box), str(tmp_path / "box"))
    (tmp_path / "box" / "agent.yaml").write_text(text)
    return tmp_path / "box"


def again(box: Path, machine: config.Machine) -> Replay:
    sidecar, clip = find(box / "state", alarm(box / "state").id)
    return replay(sidecar, clip, box / "state", machine)


def call(box: Path, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(["replay", "-c", str(box / "agent.yaml"), *args])
    out, err = capsys.readouterr()
    return code, out, err


# -- the score


def test_a_replay_agrees_to_the_last_bit(box: Path, machine: config.Machine) -> None:
    done = again(box, machine)
    event = done.clip.event
    voters = [w for w in done.windows if w.result.index in event.deciding_windows]
    assert len(voters) == len(event.deciding_windows) >= 3
    assert all(w.result.state is State.ANOMALOUS for w in voters)
    assert all(w.stored.speed is not None and w.stored.speed["source"] == "given" for w in voters)
    assert event.score == voters[-1].result.score
    assert [w.same for w in done.windows] == [True] * len(done.windows)
    assert len(done.windows) > 10
    assert not done.software
    assert any("mechanism" in {d.name for d in w.result.detectors} for w in done.windows)
    assert done.part is not None  # its deviating windows, added up as the daemon did
    assert done.part.windows <= len(done.windows)


def test_the_clip_says_what_it_was_judged_with(box: Path, machine: config.Machine) -> None:
    event = alarm(box / "state")
    clip = read_clip((box / "state" / event.evidence).with_suffix(".json"))
    then = clip.made_with
    assert then is not None
    baselines = BaselineStore(box / "state", "m")
    encoders = open_pipeline(machine, None).encoders
    assert then.bundles == {"default": encoders["default"].bundle.sha256}
    assert then.variants == {"default": encoders["default"].variant}
    assert (then.baseline, then.baseline_sha256) == (VERSION, baselines.checksum(VERSION))
    assert "source" not in then.machine  # it may hold a password
    assert then.machine["window_s"] == 2.0
    assert clip.event == event
    assert clip.typical is not None
    assert clip.typical.detector in {score.name for score in clip.typical.result.detectors}
    band = clip.typical.band
    assert band is not None
    assert 2000 < band.low_hz < band.high_hz < 8000  # where the simulated bearing rings
    files = sorted(p.suffix for p in (box / "state/evidence/m").iterdir())
    assert files == [".flac", ".json", ".png"]


@pytest.mark.parametrize(
    ("rate_hz", "bits", "suffix"), [(48_000, 24, ".flac"), (16_000, 32, ".wav"), (22_050, 32, ".wav")]
)
def test_any_kind_of_sound_can_be_replayed(
    tmp_path: Path, machine: config.Machine, rate_hz: int, bits: int, suffix: str
) -> None:
    """Also without room before the alarm in the configuration, with long windows, and where the source ends."""
    machine = msgspec.structs.replace(
        machine,
        source=config.StdinSource(rate_hz=rate_hz),
        mechanism=None,
        window_s=3.0,
        hop_s=0.7,
        alarm=config.Alarm(window_votes="10/18"),
    )
    state = tmp_path / "state"
    pipeline = open_pipeline(machine, None)
    windower = Windower(rate_hz, 3.0, 0.7, pipeline.rates)
    calm = sound(40, rate_hz=rate_hz, bits=bits)
    found = [pipeline.describe(w) for w in windower.push(Block(calm, rate_hz, 0, 0.0, 0.0), 0)]
    baselines = BaselineStore(state, "m")
    baselines.write(build(machine, found, pipeline, VERSION))
    baselines.promote()
    evidence = config.Evidence(before_s=0, after_s=1)
    settings = config.Config(agent=config.Agent(id="a", state_dir=str(state), evidence=evidence), machines=[machine])
    live = sound(27, FAULT, seed=2, rate_hz=rate_hz, bits=bits)
    with listening(settings) as (monitor, _):
        hear(monitor, live, rate_hz)
    event = alarm(state)
    assert event.evidence.endswith(suffix)
    sidecar, clip = find(state, event.id)
    done = replay(sidecar, clip, state, machine)
    assert {w.result.index for w in done.windows} >= set(event.deciding_windows)
    assert all(w.same for w in done.windows)
    recording = tmp_path / "live.wav"  # what `asd-agent score` would have said of all that was received
    soundfile.write(recording, live, rate_hz, subtype="FLOAT")
    pipeline = open_pipeline(machine, baselines.load(VERSION))
    scored = [pipeline.step(window).result for window in recorded_windows(recording, machine, pipeline.rates)]
    for window in done.windows:
        then = window.result
        again = replace(scored[window.stored.number], index=then.index, utc_s=then.utc_s, origin="")
        assert again == then
    samples = soundfile.info(state / event.evidence)
    assert samples.samplerate == rate_hz
    assert samples.duration == pytest.approx(clip.before_s + clip.after_s)


# -- the command


def test_the_command_agrees(box: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    event = alarm(box / "state")
    picture, ear = tmp_path / "a.png", tmp_path / "ear"
    code, out, _ = call(box, capsys, event.id[:8], "--picture", str(picture), "--listen", str(ear))
    assert code == 0
    assert "every number to the last bit" in out.splitlines()[-1]
    assert out.count("normal.wav") == 3
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(p.name for p in ear.iterdir()) == ["0-alarm.flac", *(f"{i}-normal.flac" for i in (1, 2, 3))]
    normal, rate_hz = soundfile.read(ear / "1-normal.flac", dtype="float32")
    assert rate_hz == RATE
    whole, _ = soundfile.read(box / "normal.wav", dtype="float32")
    first = int(float(out.split("normal sound 1:")[1].split("normal.wav ")[1].split("-")[0]) * RATE)
    np.testing.assert_array_equal(normal, whole[first : first + 2 * RATE])


def test_the_csv_has_then_and_now(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    event = alarm(box / "state")
    code, out, err = call(box, capsys, str(box / "state" / event.evidence), "--csv")
    assert (code, "agrees" in err) == (0, True)
    rows = list(csv.DictReader(io.StringIO(out)))
    then, now = ([{**r, "when": ""} for r in rows if r["when"] == when] for when in ("then", "now"))
    assert then == now
    raised = [r for r in now if r["score"] == f"{event.score:.6g}"]
    assert raised
    assert all(float(raised[0][f"distance_{name}"]) > 0 for name in ("logmel", "modulation"))


def test_a_later_event_shares_the_clip(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = alarm(copy / "state")
    windows = (*first.deciding_windows, first.deciding_windows[-1] + 1)
    later = msgspec.structs.replace(
        first, id="ffff", kind=EventKind.ESCALATED, utc_s=first.utc_s + 1, deciding_windows=windows
    )
    with Store(copy / "state") as store:
        store.commit_events([later], AlarmState())
    code, out, _ = call(copy, capsys, "ffff")
    assert (code, out.split(",")[0]) == (0, "m: escalated")
    assert sum(line.split()[2:3] == ["*"] for line in out.splitlines()) == len(windows)
    code, out, _ = call(copy, capsys, first.alarm_id)
    assert (code, out.split(",")[0]) == (0, "m: raised")


def spoil(box: Path, change: str, to: str) -> None:
    path = next((box / "state/evidence/m").glob("*.json"))
    text = path.read_text()
    assert change in text
    path.write_text(text.replace(change, to))


def test_another_score_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = next((copy / "state/evidence/m").glob("*.json"))
    clip = read_clip(path)
    assert clip.typical is not None
    distance = clip.typical.result.detectors[0].distance
    spoil(copy, repr(distance), repr(distance * 1.001))
    spoil(copy, '"soxr": "', '"soxr": "0.')
    code, out, _ = call(copy, capsys, clip.event.id)
    assert code == 1
    name = clip.typical.result.detectors[0].name
    last = out.splitlines()[-1]
    assert last.startswith("differs in 1 of ")
    assert f"distance_{name} {distance * 1.001:.6g} then, {distance:.6g} now" in last
    assert "not as it was then: soxr" in last


def remove(suffix: str) -> object:
    return lambda box: next((box / "state/evidence/m").glob(f"*{suffix}")).unlink()


def flip(box: Path) -> None:
    path = next((box / "state/evidence/m").glob("*.flac"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove(".flac"), "the sound beside it is gone"),
        (remove(".json"), "is gone: clips are deleted after 90 days, or when all of them exceed 500 MB"),
        (flip, "its sha256 has changed"),
        (lambda box: shutil.rmtree(box / "state/machines/m/baselines" / VERSION), "which judged the alarm, is gone"),
        (lambda box: spoil(box, '"baseline_sha256": "', '"baseline_sha256": "0'), "is not the one of the alarm"),
        (lambda box: spoil(box, '"default": "', '"default": "0'), "the bundle 'default' is not the one of the alarm"),
        (lambda box: spoil(box, '"window_s": 2.0', '"window_s": 2.5'), "windows of 2 s"),
        (lambda box: spoil(box, '"window_s": 2.0', '"window_size": 2'), "not one that this version reads"),
        (
            lambda box: spoil(box, '"schema": "asd/evidence/1"', '"schema": "asd/evidence/9"'),
            "not a description of a clip",
        ),
    ],
)
def test_what_is_gone_or_changed_is_said_in_one_line(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, damage: object, words: str
) -> None:
    now = time.time()
    monkeypatch.setattr("asd_agent.cli.replay.time.time", lambda: now + 86_400)
    event = alarm(copy / "state")
    damage(copy)  # type: ignore[operator]
    code, out, err = call(copy, capsys, event.id)
    assert code == 1
    assert len(err.splitlines()) == 1, err
    assert words in err
    assert not out


def test_a_clip_in_the_making_is_not_called_gone(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    event = alarm(copy / "state")
    next((copy / "state/evidence/m").glob("*.json")).unlink()
    monkeypatch.setattr("asd_agent.cli.replay.time.time", lambda: event.utc_s + 5)
    code, _, err = call(copy, capsys, event.id)
    assert (code, "is not written yet" in err) == (1, True)


def test_unknown_events_list_the_known(box: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    event = alarm(box / "state")
    for wanted in ("zzz", "", "..", str(tmp_path / "none.flac")):
        code, _, err = call(box, capsys, wanted)
        assert (code, len(err.splitlines())) == (1, 1)
    code, _, err = call(box, capsys, "zzz")
    assert event.id[:12] in err
    with Store.reader(box / "state") as store:
        other = next(e for e in store.events() if not e.evidence)
    assert "has no clip of its own" in call(box, capsys, other.id)[2]


def test_a_bundle_that_moved_is_found_where_it_is_configured_now(box: Path, machine: config.Machine) -> None:
    _, clip = find(box / "state", alarm(box / "state").id)
    assert clip.made_with is not None
    moved = {"bundles": {"/gone": clip.made_with.bundles["default"]}, "variants": {"/gone": "fp32"}}
    then = msgspec.structs.replace(clip.made_with, **moved)
    at_gone = msgspec.structs.replace(machine, bundle="/gone")
    with pytest.raises(BundleError, match="/gone"):
        encoders_of(then, at_gone, at_gone)
    assert encoders_of(then, at_gone, machine)["/gone"].bundle.sha256 == then.bundles["/gone"]


# -- what may be missing


def test_without_a_baseline_there_is_nothing_to_replay(box: Path, machine: config.Machine) -> None:
    sidecar, clip = find(box / "state", alarm(box / "state").id)
    with pytest.raises(StoreError, match="without a baseline"):
        replay(sidecar, msgspec.structs.replace(clip, made_with=None), box / "state", machine)


def test_windows_of_another_baseline_and_beyond_the_clip_are_counted(box: Path, machine: config.Machine) -> None:
    sidecar, clip = find(box / "state", alarm(box / "state").id)
    whole = replay(sidecar, clip, box / "state", machine)
    first, *rest = [w.stored for w in whole.windows]
    changed = [msgspec.structs.replace(first, baseline="another"), *rest]
    done = replay(sidecar, msgspec.structs.replace(clip, windows=tuple(changed)), box / "state", machine)
    assert (len(done.windows), done.left_out) == (len(whole.windows) - 1, 1)


# -- normal sound


def test_live_calibrations_keep_some_windows(machine: config.Machine, tmp_path: Path) -> None:
    machine = msgspec.structs.replace(machine, mechanism=None)
    settings = config.Config(agent=config.Agent(id="a", state_dir=str(tmp_path)), machines=[machine])
    with listening(settings) as (monitor, _):
        monitor.calibrator.calibrate(60.0, promote=False)
        monitor.calibrator.cancel()
        monitor.calibrator.calibrate(40.0, promote=True)
        hear(monitor, sound(41, seed=7))
        deadline = time.monotonic() + 60
        while monitor.calibrator.progress().phase in ("listening", "fitting") and time.monotonic() < deadline:
            time.sleep(0.02)
        version = monitor.calibrator.progress().version
        kept = sorted((tmp_path / "machines/m/normals" / version).iterdir())
        assert 12 <= len(kept) <= clips.NORMALS_KEPT
        assert not (tmp_path / "machines/m/normals/.new").exists()
        hear(monitor, sound(12, config.Fault(kind="bearing", level_db=-12), seed=8), gap=True)
    with Store.reader(tmp_path) as store:
        event = next(event for event in store.events() if event.evidence)
    done = replay(*find(tmp_path, event.id), tmp_path, machine)
    assert all(w.same for w in done.windows)
    assert len(done.normals) > 20
    nearest = done.normals[0]
    assert nearest.origin == ""
    assert [n.distance for n in done.normals] == sorted(n.distance for n in done.normals)
    names = {normals.kept_name(n.utc_s) for n in done.normals}
    for normal in done.normals:
        found = normals.sound_of(normal, tmp_path / "machines/m", 0)
        if normals.kept_name(normal.utc_s) in {k.name for k in kept}:
            assert found is not None
            assert len(found[0]) == 2 * RATE
        else:
            assert found is None
    assert len(names) == len(done.normals)
    audible = normals.audible(done.normals, tmp_path / "machines/m", 0, 3)
    assert [a[0] for a in audible] == [n for n in done.normals if normals.kept_name(n.utc_s) in {k.name for k in kept}][
        :3
    ]


def test_the_nearest_normal_is_the_one_with_the_same_sound(box: Path, machine: config.Machine) -> None:
    """A window of the calibration is nearest to itself, whichever detector asks."""
    baseline = BaselineStore(box / "state", "m").load(VERSION)
    pipeline: Pipeline = open_pipeline(machine, baseline)
    described = describe_recordings(pipeline, machine, [box / "normal.wav"])
    (state,) = pipeline.states
    for detector in [d.name for d in state.detectors if d.name != "mechanism"]:
        found = normals.nearest(baseline, state, detector, described[17], 3)
        assert found[0].start_s == described[17].start_s == 17.0
        assert found[0].distance < 0.5 * found[1].distance
    assert normals.nearest(baseline, state, "mechanism", described[17], 1)[0].start_s == 17.0


def test_a_recording_that_changed_is_not_passed_off_as_normal(box: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    shutil.copy(box / "normal.wav", path)
    x, _ = soundfile.read(path, dtype="float32")
    level = 20 * np.log10(x[RATE : 3 * RATE].std())
    normal = normals.Normal(str(path), 1.0, 2.0, 0.0, float(level), 1.0)
    found = normals.sound_of(normal, tmp_path, 0)
    assert found is not None
    np.testing.assert_array_equal(found[0], x[RATE : 3 * RATE])
    assert normals.sound_of(normal, tmp_path, 1) is None
    soundfile.write(path, 0.9 * x, RATE)
    assert normals.sound_of(normal, tmp_path, 0) is None
    path.unlink()
    assert normals.sound_of(normal, tmp_path, 0) is None


def test_errors_are_of_the_agent() -> None:
    assert all(issubclass(kind, AsdError) for kind in (StoreError, BundleError, BaselineError))
    assert Clip.__struct_config__.tag == "asd/evidence/1"
