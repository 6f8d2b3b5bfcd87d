"""A machine with a reference microphone: calibrated, scored, replayed and told by `doctor`; the room explains, and only
what it really makes louder."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent import config
from asd_agent.baseline import Baseline, BaselineStore
from asd_agent.calibration.build import build
from asd_agent.capture import SourceStatus
from asd_agent.cli import main
from asd_agent.evidence.clip import read_clip
from asd_agent.evidence.replay import replay
from asd_agent.scoring.detectors import SUBTRACTED
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.service.health import ChainHealth
from asd_agent.types import Block, Description, RoomSound, State, Window
from asd_agent.windowing.reference import hear_room
from asd_agent.windowing.windower import Windower
from listening import RATE, listening
from listening import blocks as blocks_of
from listening import sound as machine_sound

MACHINE = config.Machine(
    id="m",
    source=config.StdinSource(rate_hz=RATE, channels=2),
    reference=config.Reference(channel=1),
    window_s=2.0,
    hop_s=1.0,
)
SILENCE_DBFS = MACHINE.quality.silence_dbfs
FAULT = config.Fault(kind="bearing", level_db=0)


def both(seconds: float, *faults: config.Fault, seed: int = 0, room_db: float | None = None) -> np.ndarray:
    """[frames, 2]: a machine, 12 dB quieter at the reference; a room that is equally loud at both, over the machine."""
    rng = np.random.default_rng(seed)
    near = machine_sound(seconds, *faults, seed=seed)[:, 0]
    far = 0.25 * np.roll(near, 40) + 1e-3 * rng.standard_normal(len(near))
    if room_db is not None:
        room = rng.standard_normal(len(near)) * near.std() * 10 ** (room_db / 20)
        near, far = near + np.convolve(room, [0.5, 0.6, 0.5, 0.35], "same"), far + room
    return np.stack([near, far], axis=1).astype(np.float32)


def windows(samples: np.ndarray, pipeline: Pipeline, *channels: int, machine: config.Machine = MACHINE) -> list[Window]:
    windower = Windower(RATE, machine.window_s, machine.hop_s, pipeline.rates)
    return windower.push(Block(samples, RATE, 0, 0.0, 0.0, last=True), *(channels or machine.channels))


@pytest.fixture(scope="module")
def bare() -> Pipeline:
    return open_pipeline(MACHINE, None)


@pytest.fixture(scope="module")
def baseline(bare: Pipeline) -> Baseline:
    return build(MACHINE, [bare.describe(w) for w in windows(both(60), bare)], bare, "20260101T000000Z")


@pytest.fixture(scope="module")
def pipeline(bare: Pipeline, baseline: Baseline) -> Pipeline:
    return Pipeline(MACHINE, bare.encoders, baseline)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=6), st.sampled_from([16_000, 22_050]), st.booleans())
def test_the_reference_is_cut_as_the_machine_is(sizes: list[int], rate_hz: int, gap: bool) -> None:
    """Whatever the blocks: each channel's windows are those of a windower on that channel alone."""
    x = np.random.default_rng(0).standard_normal((sum(sizes), 2)).astype(np.float32)
    starts = np.cumsum([0, *sizes[:-1]])
    cut = [
        Block(x[a : a + n], rate_hz, int(a) + (500 if gap and i else 0), 0.0, 0.0, gap=gap and i == 1)
        for i, (a, n) in enumerate(zip(starts, sizes, strict=True))
    ]

    def cut_by(*channels: int) -> list[Window]:
        windower = Windower(rate_hz, 0.2, 0.1, [16_000])
        return [w for block in cut for w in windower.push(block, *channels)] + windower.flush()

    together, near, far = cut_by(0, 1), cut_by(0), cut_by(1)
    assert len(together) == len(near) == len(far)
    for window, alone, other in zip(together, near, far, strict=True):
        np.testing.assert_array_equal(window.samples, alone.samples)
        np.testing.assert_array_equal(window.resampled[16_000], alone.resampled[16_000])
        np.testing.assert_array_equal(window.reference[16_000], other.resampled[16_000])
        assert (window.index, window.start_frame, window.gap) == (alone.index, alone.start_frame, alone.gap)


@settings(max_examples=20, deadline=None)
@given(st.floats(-30, 15), st.integers(0, 99))
def test_the_room_takes_away_and_never_adds(pipeline: Pipeline, room_db: float, seed: int) -> None:
    """With what the reference microphone says no detector deviates more, and a quiet room changes nothing."""
    window = windows(both(2, FAULT, seed=seed, room_db=room_db), pipeline)[0]
    description = pipeline.describe(window)
    known, alone = pipeline.judge(description), pipeline.judge(replace(description, room=None))
    z = {d.name: d.z for d in alone.detectors}
    assert all(d.z <= z[d.name] for d in known.detectors if d.name in z)
    assert known.p_value is not None
    assert alone.p_value is not None
    assert known.p_value >= alone.p_value
    if not known.nuisance:
        assert known.p_value == alone.p_value


def test_a_loud_room_explains_and_a_loud_machine_does_not(pipeline: Pipeline) -> None:
    room = [pipeline.step(w).result for w in windows(both(10, seed=1, room_db=5), pipeline)]
    assert all("room" in r.nuisance for r in room)
    faulty = [pipeline.step(w).result for w in windows(both(10, FAULT, seed=2), pipeline)]
    assert {r.state for r in faulty} == {State.ANOMALOUS}
    assert not any(r.nuisance for r in faulty)


def test_both_views_have_banks_of_their_own(baseline: Baseline) -> None:
    (state,) = baseline.manifest.states
    ours = [name for name in state.detectors if not name.endswith(SUBTRACTED)]
    assert sorted(state.detectors) == sorted([*ours, *(name + SUBTRACTED for name in ours)])
    assert sorted(state.fused) == sorted(ours)
    assert state.room is not None
    assert all(baseline.part(f"{state.name}/{name}") for name in state.detectors)


@pytest.mark.parametrize("far", [None, 0.0, np.nan])
def test_a_reference_that_is_missing_or_silent_leaves_the_machine_as_it_is(
    pipeline: Pipeline, far: float | None
) -> None:
    x = both(4, FAULT, seed=3)
    one = [pipeline.step(w).result for w in windows(x, pipeline, 0)]
    x[:, 1] = far or 0.0
    other = windows(x if far is not None else x[:, :1], pipeline)
    assert all(hear_room(w, pipeline.rates, SILENCE_DBFS) is None for w in other)
    assert [pipeline.step(w).result for w in other] == one


def test_the_far_level_is_of_third_octaves(bare: Pipeline) -> None:
    near = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)
    found = hear_room(windows(np.stack([near, 0.5 * np.roll(near, 3)], axis=1), bare)[0], bare.rates, SILENCE_DBFS)
    assert found is not None
    np.testing.assert_allclose(found.sound.over_near_db, -6.0, atol=0.5)
    assert found.sound.coherence > 0.95


# -- health, report, configuration


def described(room: RoomSound | None) -> Description:
    quality = open_pipeline(MACHINE, None).describe(windows(both(2), open_pipeline(MACHINE, None), 0)[0]).quality
    return Description(0, 0.0, 2.0, 0.0, "", quality, {}, room=room)


@pytest.mark.parametrize(
    ("room", "word"),
    [(None, "silent or missing"), (RoomSound(0.9, (-2.0,) * 20), "move it away"), (RoomSound(0.9, (-15.0,) * 20), "")],
)
def test_health_says_what_is_wrong_with_the_reference(pipeline: Pipeline, room: RoomSound | None, word: str) -> None:
    health, result = ChainHealth(reference=True), pipeline.step(windows(both(2), pipeline)[0]).result
    for _ in range(6):
        health.see(result, described(room))
    found = [f.words for f in health.findings(SourceStatus(available=True, detail=""), None)]
    assert [word in words for words in found] == ([True] if word else [])


def test_the_report_says_when_the_reference_hears_the_machine_or_nothing(bare: Pipeline) -> None:
    x = both(40)
    found = [bare.describe(w) for w in windows(np.stack([x[:, 0], 0.9 * x[:, 0]], axis=1), bare)]
    assert any("move it away" in line for line in build(MACHINE, found, bare, "1").manifest.report.concerns)
    alone = [replace(d, room=None) for d in found]
    report = build(MACHINE, alone, bare, "1").manifest.report
    assert any("silent or missing in 39 of 39" in line for line in report.concerns)


def test_the_reference_is_another_channel() -> None:
    with pytest.raises(msgspec.ValidationError, match="own microphone"):
        msgspec.convert({"id": "m", "source": {"kind": "stdin", "rate_hz": 8000}, "reference": {"channel": 0}},
                        config.Machine)  # fmt: skip


# -- from end to end


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Recordings of two channels, and a configuration."""
    for day in range(2):
        soundfile.write(tmp_path / f"2026-03-0{day + 1}.wav", both(30, seed=day), RATE)
    settings = {
        "agent": {"id": "t", "state_dir": str(tmp_path / "state")},
        "machines": [msgspec.to_builtins(MACHINE)],
    }
    (tmp_path / "agent.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def test_calibrate_and_score_with_two_channels(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loud, one = site / "loud.flac", site / "mono.flac"
    soundfile.write(loud, both(6, seed=5, room_db=5), RATE)
    soundfile.write(one, both(6, FAULT, seed=6)[:, 0], RATE)
    settings = ["-c", str(site / "agent.yaml"), "m"]
    recordings = [str(site / f"2026-03-0{day}.wav") for day in (1, 2)]
    assert main(["calibrate", *settings, "--from", *recordings, "--promote"]) == 0
    capsys.readouterr()
    assert main(["score", *settings, str(loud), str(one)]) == 0
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert all("the room" in r["reason"] for r in rows if r["state"] == "anomalous" and r["file"] == str(loud))
    assert {r["state"] for r in rows if r["file"] == str(one)} == {"anomalous"}
    assert "silent or missing in 5 of 10 windows" in err
    assert main(["doctor", "-c", str(site / "agent.yaml")]) in (0, 1)
    stored = BaselineStore(site / "state", "m").active()
    assert stored is not None
    assert stored.manifest.knows_room
    assert any("the reference microphone explains" in fact for fact in stored.manifest.report.facts)


def test_a_clip_holds_both_channels_and_gives_the_same_numbers_again(tmp_path: Path, baseline: Baseline) -> None:
    """Live, with what the controller and the room say; scored again from the clip, to the last bit."""
    with listening(tmp_path, MACHINE, baseline, 1e9) as live:
        live.hear(both(20, seed=7, room_db=3))
        live.hear(both(30, FAULT, seed=8))
        live.hear(both(12, seed=9))
    (sidecar,) = (tmp_path / "evidence" / "m").glob("*.json")
    clip = read_clip(sidecar)
    assert soundfile.info(tmp_path / clip.event.evidence).channels == 2
    done = replay(sidecar, clip, tmp_path, MACHINE)
    assert done.windows
    assert all(w.same for w in done.windows)
    assert done.samples.ndim == 1
    assert any(w.description.room is not None for w in done.windows)


def test_a_real_fan_with_one_of_its_microphones_as_reference(shared_dir: Path, bare: Pipeline) -> None:
    """Eight microphones around a fan: what normal sound is stays normal, and the coherence is a share."""
    rows = []
    for path in sorted((shared_dir / "data" / "eight_channel").glob("fan_*.flac")):
        x, rate_hz = soundfile.read(path, dtype="float32")
        assert rate_hz == RATE
        rows.append(windows(np.ascontiguousarray(x[:, [0, 4]]), bare))
    found = [bare.describe(w) for cut in rows for w in cut]
    known = build(MACHINE, found[::2], bare, "1")
    judge = Pipeline(MACHINE, bare.encoders, known)
    results = [judge.judge(d) for d in found[1::2]]
    assert sum(r.state is State.NORMAL for r in results) >= 0.9 * len(results)
    (state,) = known.manifest.states
    assert state.room is not None
    assert 0 < state.room.coherence < 1


def test_windows_of_a_block_stream_reach_the_health_of_the_daemon(tmp_path: Path, baseline: Baseline) -> None:
    with listening(tmp_path, MACHINE, baseline, 1e9) as live:
        for block in blocks_of(both(12, seed=1)[:, :1], 1e9):
            live.monitor.offer(block)
            while (window := live.monitor.windows.take()) is not None:
                live.monitor.score(window)
        words = [f.words for f in live.monitor.health(SourceStatus(available=True, detail=""))]
    assert any("reference microphone is silent or missing" in line for line in words)
