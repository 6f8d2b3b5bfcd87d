"""Evidence clips: the sound before and after an alarm, whole or not at all, within limits of age and size."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent import config
from asd_agent.evidence import clip as clips
from asd_agent.evidence.clip import Clip, ScoredWindow, Segment
from asd_agent.evidence.recorder import ClipRecorder
from asd_agent.types import EventKind
from store_cases import UTC_S, alarm_event, normal_window

RATE = 8000
SETTINGS = config.Evidence(before_s=2.0, after_s=1.0)


def ramp(start: int, frames: int) -> np.ndarray:
    """Sound in which each frame can be told from the others."""
    return ((np.arange(start, start + frames) % 30_000) / 32768).astype(np.float32)


def feed(evidence: ClipRecorder, start: int, frames: int, gap: bool = False, machine: str = "m1") -> None:
    evidence.feed(machine, ramp(start, frames), RATE, UTC_S + start / RATE, gap)


def clip_of(state_dir: Path, relative: str) -> tuple[np.ndarray, Clip]:
    path = state_dir / relative
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE
    return samples, msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Clip)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=12), st.integers(0, 11), st.integers(1, 9000))
def test_a_clip_is_what_was_received_around_the_alarm(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], alarm_after: int, chunk: int
) -> None:
    state_dir = tmp_path_factory.mktemp("state")
    evidence = ClipRecorder(state_dir, SETTINGS)
    received = 0
    for size in sizes[: alarm_after + 1]:
        feed(evidence, received, size)
        received += size
    event = evidence.attach(alarm_event("e1", utc_s=UTC_S + received / RATE))
    last = received
    while last < received + RATE:
        feed(evidence, last, chunk)
        last += chunk
    evidence.maintain()
    samples, clip = clip_of(state_dir, event.evidence)
    before = min(received, 2 * RATE)
    np.testing.assert_array_equal(samples, (ramp(received - before, before + RATE) * 32768).astype(np.int16))
    np.testing.assert_array_equal(
        clips.read_sound(state_dir / event.evidence, clip), ramp(received - before, before + RATE)
    )
    assert clip.event == event
    assert clip.before_s == before / RATE
    assert clip.after_s == 1.0
    assert clip.start_utc_s == pytest.approx(UTC_S + (received - before) / RATE, abs=1e-3)
    assert [p.suffix for p in sorted((state_dir / "evidence" / "m1").iterdir())] == [".flac", ".json"]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([16, 24, 32]), st.integers(0, 2**32 - 1), st.integers(1, 300), st.floats(1e-4, 4.0))
def test_sound_comes_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, bits: int, seed: int, frames: int, level: float
) -> None:
    rng = np.random.default_rng(seed)
    samples = (level * rng.standard_normal(frames)).astype(np.float32)
    if bits < 32:
        full = 2.0 ** (bits - 1)
        samples = (np.rint(np.clip(samples * full, -full, full - 1)) / full).astype(np.float32)
    state_dir = tmp_path_factory.mktemp("state")
    evidence = ClipRecorder(state_dir, config.Evidence(before_s=2.0, after_s=0))
    evidence.feed("m1", samples, RATE, UTC_S)
    event = evidence.attach(alarm_event("e1"))
    evidence.close()
    path = state_dir / event.evidence
    narrow = clips.bits_of(samples)
    assert narrow <= bits
    assert path.suffix == (".wav" if narrow == 32 else ".flac")
    assert soundfile.info(path).subtype == {16: "PCM_16", 24: "PCM_24", 32: "FLOAT"}[narrow]
    np.testing.assert_array_equal(clips.read_sound(path, clips.read_clip(path.with_suffix(".json"))), samples)


def row(index: int, received: int, begun: int = 0, p_value: float = 1e-4) -> ScoredWindow:
    window = normal_window(index, np.random.default_rng(index))
    return ScoredWindow(
        frame=received, skipped=received - begun, number=index, result=replace(window, p_value=p_value, duration_s=1.0)
    )


def test_a_clip_reaches_back_to_what_the_voting_windows_were_made_from(tmp_path: Path) -> None:
    """However little the configuration asks for, and however far behind the windows are judged."""
    evidence = ClipRecorder(tmp_path, config.Evidence(before_s=0.5, after_s=0.5))
    for second in range(30):
        evidence.feed(
            "m1", ramp(second * RATE, RATE), RATE, UTC_S + second, received=second * RATE, begun=2 * RATE, keep_s=6.0
        )
        if 12 <= second < 20:  # from then on nothing is judged for ten seconds
            evidence.note("m1", row(second, (second - 1) * RATE, 2 * RATE))
    event = evidence.attach(alarm_event("e1", deciding_windows=(17, 18, 19)), lambda: None, lead_s=3.0)
    evidence.note("m1", row(20, 19 * RATE, 2 * RATE))  # while the clip goes on
    feed_on = {"received": 30 * RATE, "begun": 30 * RATE}
    evidence.feed("m1", ramp(30 * RATE, RATE), RATE, UTC_S + 30, gap=True, **feed_on)
    evidence.note("m1", row(21, 20 * RATE, 2 * RATE))  # before it is written
    evidence.maintain()
    samples, clip = clip_of(tmp_path, event.evidence)
    first = (16 - 3) * RATE
    np.testing.assert_array_equal(samples, (ramp(first, 30 * RATE + RATE // 2 - first) * 32768).astype(np.int16))
    assert [(w.result.index, w.frame + first, w.skipped) for w in clip.windows] == [
        (i, (i - 1) * RATE, (i - 3) * RATE) for i in range(14, 22)
    ]
    assert [w.result.index for w in clip.deciding] == [17, 18, 19]
    assert clip.typical is not None
    assert clip.typical.result.index == 19
    assert clip.segments == (
        Segment(frame=0, skipped=first - 2 * RATE, ended=True),
        Segment(frame=30 * RATE - first, skipped=0, ended=False),
    )
    assert clip.gaps_s == (17.0,)
    assert clip.windows[0].result == row(14, 0).result  # every digit


def test_sound_in_memory_is_bounded_when_nothing_is_judged_any_more(tmp_path: Path) -> None:
    evidence = ClipRecorder(tmp_path, SETTINGS)
    evidence.feed("m1", ramp(0, 100), RATE, UTC_S, received=0)
    evidence.note("m1", row(0, 0))
    for second in range(250):
        evidence.feed("m1", ramp(0, RATE), RATE, UTC_S, received=100 + second * RATE, keep_s=10.0)
    assert evidence._tapes["m1"].frames <= 181 * RATE


def test_a_machine_that_is_received_anew_begins_a_new_clip(tmp_path: Path) -> None:
    """After a reload frames are counted from 0 again: rows of before would point anywhere."""
    evidence = ClipRecorder(tmp_path, SETTINGS)
    evidence.feed("m1", ramp(0, RATE), RATE, UTC_S, received=0)
    evidence.feed("m1", ramp(RATE, RATE), RATE, UTC_S, received=RATE)
    evidence.note("m1", row(1, RATE))
    first = evidence.attach(alarm_event("e1", deciding_windows=(1,)))
    evidence.feed("m1", ramp(0, RATE // 2), RATE, UTC_S, received=0)
    second = evidence.attach(alarm_event("e2", alarm_id="a2"))
    evidence.close()
    assert soundfile.info(tmp_path / first.evidence).frames == 2 * RATE
    samples, clip = clip_of(tmp_path, second.evidence)
    assert (len(samples), clip.windows) == (RATE // 2, ())


def test_sound_of_another_kind_ends_a_clip(tmp_path: Path) -> None:
    evidence = ClipRecorder(tmp_path, SETTINGS)
    feed(evidence, 0, RATE)
    event = evidence.attach(alarm_event("e1"))
    evidence.feed("m1", np.full(100, 0.1, np.float32), RATE, UTC_S)
    feed(evidence, RATE, RATE)
    evidence.maintain()
    assert event.evidence.endswith(".flac")
    assert soundfile.info(tmp_path / event.evidence).frames == RATE


def test_the_picture_lies_beside_the_clip_and_its_failure_loses_nothing(tmp_path: Path) -> None:
    def draw(samples: np.ndarray, clip: Clip) -> bytes:
        if clip.event.id == "bad":
            raise ValueError("no picture")
        return b"%d samples" % len(samples)

    evidence = ClipRecorder(tmp_path, SETTINGS, draw=draw)
    for name in ("good", "bad"):
        feed(evidence, 0, RATE)
        evidence.attach(alarm_event(name, alarm_id=name))
        evidence.finish("m1")
    evidence.maintain()
    assert [p.name.split("_")[1] for p in sorted((tmp_path / "evidence/m1").iterdir())] == [
        "bad.flac", "bad.json", "good.flac", "good.json", "good.png",
    ]  # fmt: skip
    assert next((tmp_path / "evidence/m1").glob("*.png")).read_bytes() == b"8000 samples"


def test_the_path_tells_machine_time_and_alarm(tmp_path: Path) -> None:
    evidence = ClipRecorder(tmp_path, SETTINGS)
    feed(evidence, 0, RATE)
    event = evidence.attach(alarm_event("e1", alarm_id="a-7"))
    assert event.evidence == "evidence/m1/20260327T120000Z_a-7.flac"


def test_only_alarms_begin_clips_and_one_clip_at_a_time(tmp_path: Path) -> None:
    evidence = ClipRecorder(tmp_path, SETTINGS)
    assert evidence.attach(alarm_event("e0")).evidence == ""  # nothing received yet
    feed(evidence, 0, RATE)
    assert evidence.attach(alarm_event("e1", kind=EventKind.CLEARED)).evidence == ""
    first = evidence.attach(alarm_event("e2"))
    second = evidence.attach(alarm_event("e3", kind=EventKind.ESCALATED, utc_s=UTC_S + 1))
    assert second.evidence == first.evidence
    assert evidence.attach(alarm_event("e4", machine="m2")).evidence == ""
    off = ClipRecorder(tmp_path, config.Evidence(enabled=False))
    feed(off, 0, RATE)
    assert off.attach(alarm_event("e5")).evidence == ""


def test_the_end_of_the_sound_ends_the_clip(tmp_path: Path) -> None:
    evidence = ClipRecorder(tmp_path, SETTINGS)
    feed(evidence, 0, RATE)
    event = evidence.attach(alarm_event("e1"))
    feed(evidence, RATE, 100)
    evidence.close()
    samples, clip = clip_of(tmp_path, event.evidence)
    assert len(samples) == RATE + 100
    assert clip.after_s == 100 / RATE


def test_gaps_are_noted_and_nan_is_silence(tmp_path: Path) -> None:
    evidence = ClipRecorder(tmp_path, SETTINGS)
    feed(evidence, 0, 1000, gap=True)  # nothing before it in the clip
    feed(evidence, 5000, 1000, gap=True)
    evidence.feed("m1", np.full(500, np.nan, np.float32), RATE, UTC_S)
    event = evidence.attach(alarm_event("e1"))
    feed(evidence, 9000, 4000, gap=True)
    evidence.close()
    samples, clip = clip_of(tmp_path, event.evidence)
    assert clip.gaps_s == (1000 / RATE, 2500 / RATE)
    assert not samples[2000:2500].any()


def test_another_rate_begins_anew(tmp_path: Path) -> None:
    evidence = ClipRecorder(tmp_path, SETTINGS)
    feed(evidence, 0, RATE)
    first = evidence.attach(alarm_event("e1"))
    evidence.feed("m1", np.zeros(16_000, np.float32), 16_000, UTC_S)
    second = evidence.attach(alarm_event("e2", utc_s=UTC_S + 60))
    evidence.close()
    assert soundfile.info(tmp_path / first.evidence).frames == RATE
    assert soundfile.info(tmp_path / second.evidence).samplerate == 16_000


def test_memory_is_bounded(tmp_path: Path) -> None:
    evidence = ClipRecorder(tmp_path, SETTINGS)
    for i in range(200):
        feed(evidence, i * 800, 800)
    tape = evidence._tapes["m1"]
    assert 2 * RATE <= tape.frames == sum(len(chunk.samples) for chunk in tape.chunks) < 2 * RATE + 800
    assert {chunk.samples.dtype for chunk in tape.chunks} == {np.dtype(np.int16)}
    for i in range(50):  # alarms without anybody writing clips
        evidence.attach(alarm_event(f"e{i}", alarm_id=f"a{i}"))
        feed(evidence, i * RATE, RATE)
    assert len(evidence._ready) == 8
    assert evidence.failed == 42
    evidence.maintain()
    assert len(list(tmp_path.glob("evidence/*/*.flac"))) == 2  # a few at a time
    evidence.close()
    assert len(list(tmp_path.glob("evidence/*/*.flac"))) == 8
    assert evidence.findings == ["42 clips of alarms lost: no room on disk, or too many at once"]


def write(state_dir: Path, name: str, age_days: float, frames: int = 50_000) -> Path:
    rng = np.random.default_rng(1)
    event = alarm_event(name, alarm_id=name)
    path = state_dir / clips.clip_path(event)
    clip = Clip(event=event, rate_hz=RATE, start_utc_s=UTC_S, before_s=1.0, after_s=1.0)
    clips.write_clip(path, (rng.integers(-9999, 9999, frames) / 32768).astype(np.float32), clip)
    path.with_suffix(".png").write_bytes(b"picture")
    for file in (path, path.with_suffix(".json"), path.with_suffix(".png")):
        os.utime(file, (UTC_S - age_days * 86_400, UTC_S - age_days * 86_400))
    return path


def folder_of(path: Path) -> list[Path]:
    """The files of one clip."""
    return [path, path.with_suffix(".json"), path.with_suffix(".png")]


def test_clips_expire_by_age_and_by_total_size(tmp_path: Path) -> None:
    paths = [write(tmp_path, f"a{age:03d}", age) for age in (100, 91, 89, 50, 10, 1)]
    size = sum(file.stat().st_size for file in folder_of(paths[0]))
    folder = tmp_path / "evidence"
    assert clips.expire_clips(folder, UTC_S, max_age_days=90, max_bytes=1e9) == 2
    assert [p.exists() for p in paths] == [False, False, True, True, True, True]
    assert clips.expire_clips(folder, UTC_S, max_age_days=90, max_bytes=2.5 * size) == 2
    assert sorted(folder.glob("*/*")) == sorted(f for p in paths[4:] for f in folder_of(p))


def test_a_full_disk_loses_a_clip_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = ClipRecorder(tmp_path, SETTINGS)
    real_fsync, calls = os.fsync, []

    def fail_second(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 3:  # the sidecar and its folder are down, the sound is not
            raise OSError(errno.ENOSPC, "no space")
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", fail_second)
    for i in (1, 2):
        feed(evidence, 0, RATE)
        event = evidence.attach(alarm_event(f"e{i}", alarm_id=f"a{i}"))
        feed(evidence, RATE, RATE)
        evidence.maintain()
    assert evidence.failed == 1
    assert soundfile.info(tmp_path / event.evidence).frames == 3 * RATE
    assert not list(tmp_path.glob("evidence/*/*.part"))


def test_clips_never_take_the_last_free_space(tmp_path: Path) -> None:
    evidence = ClipRecorder(tmp_path, SETTINGS, spare_bytes=1 << 60)
    feed(evidence, 0, RATE)
    evidence.attach(alarm_event("e1"))
    evidence.close()
    assert evidence.failed == 1
    assert not list(tmp_path.glob("evidence/*/*"))


def test_what_a_power_cut_left_is_removed(tmp_path: Path) -> None:
    path = write(tmp_path, "a1", 1)
    path.with_name(f".{path.name}.part").write_bytes(b"half")
    ClipRecorder(tmp_path, SETTINGS)
    assert not list(tmp_path.glob("evidence/*/.*.part"))
    assert path.exists()


def test_a_clip_that_had_only_begun_is_finished_from_what_was_kept(tmp_path: Path) -> None:
    evidence = ClipRecorder(tmp_path, SETTINGS)
    feed(evidence, 0, 2 * RATE)
    event = evidence.attach(alarm_event("e1"))
    evidence.save_begun()
    feed(evidence, 2 * RATE, RATE // 2)
    assert not (tmp_path / event.evidence).exists()
    ClipRecorder(tmp_path, SETTINGS)  # the process was killed
    samples, clip = clip_of(tmp_path, event.evidence)
    assert len(samples) == 2 * RATE
    assert clip.event == event
    assert list((tmp_path / event.evidence).parent.glob(".*")) == []


def test_the_whole_clip_replaces_its_beginning(tmp_path: Path) -> None:
    evidence = ClipRecorder(tmp_path, SETTINGS)
    feed(evidence, 0, 2 * RATE)
    event = evidence.attach(alarm_event("e1"))
    evidence.save_begun()
    evidence.save_begun()  # once is enough
    feed(evidence, 2 * RATE, RATE)
    evidence.maintain()
    assert len(clip_of(tmp_path, event.evidence)[0]) == 3 * RATE
    assert list((tmp_path / event.evidence).parent.glob(".*")) == []


def test_a_clip_that_cannot_be_written_is_withdrawn(tmp_path: Path) -> None:
    evidence = ClipRecorder(tmp_path, SETTINGS, spare_bytes=1 << 60)
    feed(evidence, 0, RATE)
    event = evidence.attach(alarm_event("e1"))
    evidence.save_begun()
    evidence.close()
    assert evidence.withdrawn() == [("m1", event.evidence)]
    assert evidence.withdrawn() == []
