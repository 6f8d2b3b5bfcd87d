"""`asd-agent archive`: the numbers of `asd-agent score`, whatever the engine, the file system and the interruptions."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.dataset
import pyarrow.parquet
import pytest
import soundfile
import yaml

from asd_agent import config
from asd_agent.archive.alarms import ArchiveAlarm
from asd_agent.archive.batches import batches, day
from asd_agent.archive.compare import Outcome, occasions
from asd_agent.archive.engine import Engine
from asd_agent.archive.recordings import Naming, Recording, found
from asd_agent.archive.results import Results
from asd_agent.archive.table import Rows, descriptions, result, rows
from asd_agent.capture.simulate import machine_blocks
from asd_agent.cli import main
from asd_agent.errors import UsageError
from asd_agent.reasons import Change, Deviation
from asd_agent.types import (
    Cause,
    Description,
    DetectorScore,
    Fingerprint,
    Level,
    Quality,
    RoomSound,
    State,
    Transient,
    WindowResult,
)

RATE = 16_000
FORMATS = (".wav", ".flac", ".ogg", ".mp3")


def machine_sound(seconds: float, seed: int = 0, *faults: config.Fault) -> np.ndarray:
    source = config.SimulatedSource(seed=seed, duration_s=seconds, pace="fast", faults=list(faults))
    return np.concatenate([block.samples for block in machine_blocks(source)])[:, 0]


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "agent.yaml"
        source = {"kind": "stdin", "rate_hz": RATE}
        machines = [{"id": name, "source": source, "window_s": 2, "hop_s": 1} for name in ("fan", "pump")]
        settings = {"agent": {"id": "t", "state_dir": str(folder / "state")}, "machines": machines}
        self.path.write_text(yaml.safe_dump(settings))
        fault = config.Fault(kind="bearing", level_db=0)
        for number, name in enumerate(("fan", "pump")):
            (folder / "normal" / name).mkdir(parents=True)
            (folder / "later" / name).mkdir(parents=True)
            for i in range(3):
                sound = machine_sound(20, 10 * number + i)
                soundfile.write(folder / "normal" / name / f"2026-03-0{i + 1}T06-00-00.wav", sound, RATE)
            for i, suffix in enumerate(FORMATS):
                sound = machine_sound(8, 10 * number + 5 + i, *([fault] if i >= 2 and name == "fan" else []))
                soundfile.write(folder / "later" / name / f"2026-03-05T06-0{i}-00{suffix}", sound, RATE)

    def asd(self, *words: object, code: int = 0) -> None:
        first, *rest = words
        head = [first, rest.pop(0)] if first == "archive" else [first]
        assert main([*map(str, head), "-c", str(self.path), *map(str, rest)]) == code


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Recordings of two machines, and their baselines, made by the archive itself."""
    site = Site(tmp_path_factory.mktemp("archive"))
    site.asd("archive", "calibrate", site.folder / "normal", "-o", site.folder / "cal", "--promote", *HERE)
    return site


HERE = ("--engine", "processes", "--workers", "1")


def windows(folder: Path | str) -> list[dict[str, object]]:
    table = pyarrow.dataset.dataset(f"{folder}/windows", format="parquet", partitioning="hive").to_table()
    return sorted(table.to_pylist(), key=lambda row: (row["file"], row["index"] if row["index"] is not None else -1))


def scored(site: Site, machine: str, *paths: object, capsys) -> list[dict[str, str]]:
    capsys.readouterr()
    site.asd("score", machine, *paths, "--json")
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def check_equal(found: list[dict[str, object]], expected: list[dict[str, object]]) -> None:
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        for key in ("file", "index", "start_s", "duration_s", "state", "cause", "level", "score", "p_value", "reason",
                    "embedding_p", "embedding_distance", "mechanism_p", "operating", "nuisance", "transient_p",
                    "transient_at_s", "detectors", "deviation"):  # fmt: skip
            assert plain(ours[key]) == plain(theirs[key]), key


def plain(value: object) -> object:
    """A deviation is JSON in a table."""
    return json.loads(value) if isinstance(value, str) and value.startswith("{") else value


def test_its_numbers_are_those_of_score_to_the_last_digit(site, tmp_path, capsys):
    site.asd("archive", "score", site.folder / "later", "-o", tmp_path / "out", "--engine", "processes", "--workers", 2)
    found = windows(tmp_path / "out")
    assert {str(row["day"]) for row in found} == {"2026-03-05"}
    for machine in ("fan", "pump"):
        expected = scored(site, machine, site.folder / "later" / machine, capsys=capsys)
        check_equal([row for row in found if row["machine"] == machine], expected)
    assert any(row["state"] == "anomalous" for row in found)
    alarms = pyarrow.parquet.read_table(tmp_path / "out" / "alarms.parquet").to_pylist()
    assert "fan" in {alarm["machine"] for alarm in alarms}
    assert all(alarm["file"].endswith(("02-00.ogg", "03-00.mp3")) for alarm in alarms)


@pytest.mark.slow_client
def test_ray_gives_the_same(site, tmp_path):
    pytest.importorskip("ray")
    site.asd("archive", "score", site.folder / "later", "-o", tmp_path / "here", *HERE)
    site.asd("archive", "score", site.folder / "later", "-o", tmp_path / "ray", "--engine", "ray", "--workers", 2)
    check_equal(windows(tmp_path / "ray"), windows(tmp_path / "here"))


def test_a_run_that_was_cut_off_goes_on_and_does_nothing_twice(site, tmp_path, monkeypatch, capsys):
    from asd_agent.archive import batches as module
    from asd_agent.archive.worker import Worker
    from asd_agent.errors import AsdError

    monkeypatch.setattr(module, "MOST_RECORDINGS", 1)
    out, whole = tmp_path / "out", Worker.__call__
    calls: Counter[str] = Counter()

    def cut_off(self, batch):
        if sum(calls.values()) == 3 and not calls["again"]:
            raise AsdError("the lights go out")
        calls[batch.recordings[0].url] += 1
        return whole(self, batch)

    monkeypatch.setattr(Worker, "__call__", cut_off)
    site.asd("archive", "score", site.folder / "later", "-o", out, *HERE, code=1)
    assert len(windows(out)) == 3 * 7
    calls["again"] = 1
    capsys.readouterr()
    site.asd("archive", "score", site.folder / "later", "-o", out, "--json", *HERE)
    assert json.loads(capsys.readouterr().out)["run"]["done_before"] == 3
    del calls["again"]
    assert len(calls) == 8
    assert set(calls.values()) == {1}
    counted = Counter((row["file"], row["index"]) for row in windows(out))
    assert len(counted) == 8 * 7
    assert set(counted.values()) == {1}


def test_a_changed_recording_is_scored_again_and_its_old_windows_are_gone(site, tmp_path):
    shutil.copytree(site.folder / "later", tmp_path / "later")
    score = ("archive", "score", tmp_path / "later", "-o", tmp_path / "out", *HERE)
    site.asd(*score)
    changed = tmp_path / "later" / "fan" / "2026-03-05T06-00-00.wav"
    soundfile.write(changed, machine_sound(5, 77), RATE)
    site.asd(*score)
    found = windows(tmp_path / "out")
    assert len([row for row in found if row["file"] == str(changed)]) == 4
    assert len(found) == 7 * 7 + 4


def test_a_corrupt_recording_is_a_row_with_its_reason(site, tmp_path, capsys):
    folder = tmp_path / "later" / "fan"
    shutil.copytree(site.folder / "later" / "fan", folder)
    (folder / "2026-03-05T05-00-00.wav").write_bytes(b"RIFF, and nothing of it is true")
    (folder / "2026-03-05T05-01-00.flac").write_bytes(b"")
    site.asd("archive", "score", tmp_path / "later", "-o", tmp_path / "out", *HERE)
    found = windows(tmp_path / "out")
    errors = {Path(row["file"]).name: row["error"] for row in found if row["error"]}
    assert set(errors) == {"2026-03-05T05-00-00.wav", "2026-03-05T05-01-00.flac"}
    assert "empty" in errors["2026-03-05T05-01-00.flac"]
    assert len([row for row in found if not row["error"]]) == 4 * 7
    assert "2 recordings could not be read" in capsys.readouterr().err
    soundfile.write(folder / "2026-03-05T05-00-00.wav", machine_sound(3, 78), RATE)
    site.asd("archive", "score", tmp_path / "later", "-o", tmp_path / "out", "--retry-failed", *HERE)
    assert len([row for row in windows(tmp_path / "out") if not row["error"]]) == 4 * 7 + 2


def test_recordings_and_results_on_another_file_system(site, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.rm("/", recursive=True) if memory.ls("/") else None
    memory.put(str(site.folder / "later"), "/plant/later", recursive=True)
    site.asd("archive", "score", "memory://plant/later", "-o", "memory://out", *HERE)
    memory.get("/out", str(tmp_path / "out"), recursive=True)
    site.asd("archive", "score", site.folder / "later", "-o", tmp_path / "local", *HERE)
    found, expected = windows(tmp_path / "out"), windows(tmp_path / "local")
    assert {row["file"].partition("later/")[0] for row in found} == {"memory:///plant/"}
    check_equal([row | {"file": Path(row["file"]).name} for row in found],
                [row | {"file": Path(row["file"]).name} for row in expected])  # fmt: skip


def test_rescore_gives_what_score_gives_without_encoding(site, tmp_path, monkeypatch):
    site.asd("archive", "calibrate", site.folder / "later", "-o", tmp_path / "stored", *HERE)
    site.asd("archive", "score", site.folder / "later", "-o", tmp_path / "scored", *HERE)
    monkeypatch.setattr("asd_agent.encode.encoder.Encoder.embed", None)
    site.asd("archive", "rescore", tmp_path / "stored", "-o", tmp_path / "again", *HERE)
    check_equal(windows(tmp_path / "again"), windows(tmp_path / "scored"))


def test_results_of_other_settings_are_not_mixed(site, tmp_path, capsys):
    site.asd("archive", "score", site.folder / "later", "-o", tmp_path / "out", *HERE)
    other = tmp_path / "other.yaml"
    other.write_text(site.path.read_text().replace("hop_s: 1", "hop_s: 2"))
    assert main(["archive", "score", "-c", str(other), str(site.folder / "later"), "-o", str(tmp_path / "out")]) == 2
    assert "another hop_s of fan" in capsys.readouterr().err


def test_recordings_of_nobody_are_counted_and_said(site, tmp_path, capsys):
    (tmp_path / "a" / "press").mkdir(parents=True)
    shutil.copy(site.folder / "later" / "fan" / "2026-03-05T06-00-00.wav", tmp_path / "a" / "press")
    site.asd("archive", "score", tmp_path / "a", "-o", tmp_path / "out", *HERE, code=1)
    assert "1 recordings left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "machine", "utc_s"),
    [
        ("/a/fan/x/2026-03-05T06-07-08.wav", "fan", 1772690828.0),
        ("/a/fan/20260305_060708.250.flac", "fan", 1772690828.25),
        ("s3://b/pump/fan/mic1-2026-03-05 06:07:08.ogg", "fan", 1772690828.0),
        ("/a/pump/1772690828123.flac", "pump", 1772690828.123),
        ("/a/pump/2026-03-05.flac", "pump", 1772668800.0),
        ("/a/press/rec17.mp3", "", None),
        ("/a/pump/2026-13-45.flac", "pump", None),
    ],
)
def test_machine_and_time_are_read_from_the_path(url, machine, utc_s):
    naming = Naming(["fan", "pump"])
    assert (naming.machine(url), naming.utc_s(url)) == (machine, utc_s)


def test_a_pattern_and_a_time_zone_say_it_otherwise():
    naming = Naming(["fan"], pattern=r"(?P<machine>\w+)-mic/(?P<time>[\d-]+)", timezone="Europe/Berlin")
    assert naming.machine("/x/press-mic/2026-07-01-12-00-00.wav") == "press"
    assert naming.utc_s("/x/press-mic/2026-07-01-12-00-00.wav") == 1782900000.0


def test_a_stored_window_is_read_back_to_the_last_bit(site):
    results = Results(str(site.folder / "cal"))
    for name in results.part_names("fan"):
        table = results.table(name)
        found = rows(table)
        again = Rows()
        for row, description in zip(found, descriptions(table, found), strict=True):
            again.add(row["file"], row["recorded_utc_s"], description, result(row))
        assert again.table().equals(table.replace_schema_metadata(None))


def test_nothing_of_a_window_is_lost_on_disk():
    """Every field has a value that is not its default, so that a new one cannot be forgotten."""
    quality = Quality((), -20.1, 0.5, 0.001, 0.25)
    place = {"index": 7, "start_s": 35.0, "duration_s": 10.0, "utc_s": 1772690435.125, "origin": "/a/b.flac"}
    description = Description(
        **place, quality=quality, embeddings={"x": np.float32([0.1, 0.2])}, indicators={"rms": 0.3},
        transient=Transient(1.5, 9.25), fingerprint=Fingerprint(48_000, (-70.1, -80.2), 21_000.5, 0.002),
        room=RoomSound(0.4, (1.5, -2.5)),
    )  # fmt: skip
    change = Change(quantity="level", change_db=6.1, band_hz=(1e3, 2e3), z=9.7)
    original = WindowResult(
        **place, state=State.ANOMALOUS, quality=quality, p_value=1e-5, level=Level.DANGER,
        detectors=(DetectorScore("x", 3.25, 8.5, 1e-6),), embedding_p=1e-4, embedding_distance=3.25, mechanism_p=0.125,
        cause=Cause.CLIPPING, reason="louder", deviation=Deviation(finding="bearing", changes=(change,), z=9.7),
        operating="idle", nuisance="Dog", transient_p=1e-3, transient_at_s=1.5,
    )  # fmt: skip
    live_only = {"operating", "changing"}  # reported over MQTT
    for filled in (description, original):
        for field in dataclasses.fields(filled):
            if field.default is not dataclasses.MISSING and field.name not in live_only:
                assert getattr(filled, field.name) != field.default, field.name
    collected = Rows()
    collected.add("/a/b.flac", 1772690400.0, description, original)
    table = collected.table()
    (row,) = rows(table)
    assert result(row) == original
    (again,) = descriptions(table, [row])
    assert dataclasses.replace(again, embeddings={}) == dataclasses.replace(description, embeddings={})
    assert np.array_equal(again.embeddings["x"], description.embeddings["x"])


def test_batches_are_of_one_machine_and_day_and_hold_all_once(tmp_path):
    recordings = [
        Recording(f"/a/m{i % 3}/{i}.wav", "1", 1 << 20, f"m{i % 3}", 1_772_600_000.0 + 997.0 * i) for i in range(1000)
    ]
    made = list(batches(iter(recordings), Results(str(tmp_path))))
    assert sorted(r.url for b in made for r in b.recordings) == sorted(r.url for r in recordings)
    assert all({(r.machine, day(r.utc_s)) for r in b.recordings} == {(b.machine, b.day)} for b in made)
    assert max(len(b.recordings) for b in made) <= 64
    assert len({b.part for b in made}) == len(made)


def test_a_folder_that_is_not_there_and_a_driver_that_is_missing_are_one_line(site, tmp_path, capsys):
    site.asd("archive", "score", tmp_path / "nowhere", "-o", tmp_path / "out", *HERE, code=1)
    assert "no such file or folder" in capsys.readouterr().err
    site.asd("archive", "score", "nosuch://x", "-o", tmp_path / "out", *HERE, code=2)
    assert "nosuch" in capsys.readouterr().err


def test_found_takes_patterns_and_sorts(site):
    names = [Path(r.url).name for r in found([str(site.folder / "later" / "fan" / "*0[01]-00*")], Naming(["fan"]))]
    assert names == ["2026-03-05T06-00-00.wav", "2026-03-05T06-01-00.flac"]


def test_compare_says_who_raises_what_and_lets_it_be_heard(site, tmp_path, capsys):
    for name in ("fan", "pump"):
        shutil.copytree(site.folder / "normal" / name, tmp_path / "sound" / name)
    fault = config.Fault(kind="bearing", level_db=0)
    soundfile.write(tmp_path / "sound" / "fan" / "2026-03-04T06-00-00.flac", machine_sound(20, 3, fault), RATE)
    compare = ("archive", "compare", tmp_path / "sound", "-o", tmp_path / "out", "--normal-until", "2026-03-03T12:00",
               "--bundle", "spectral", "--window-s", "1", "2", "--votes", "3/5", "40/40", "--json", *HERE)  # fmt: skip
    capsys.readouterr()
    site.asd(*compare)
    outcomes = {(o["machine"], o["setting"]): o for o in json.loads(capsys.readouterr().out)}
    alarms = {key: len(o["alarms"]) for key, o in outcomes.items()}
    assert alarms["fan", "spectral 2 s, votes 3/5"] == alarms["fan", "spectral 1 s, votes 3/5"] == 1
    assert {key[1] for key, count in alarms.items() if not count} >= {"spectral 2 s, votes 40/40"}
    alarm = outcomes["fan", "spectral 2 s, votes 3/5"]["alarms"][0]
    assert alarm["file"].endswith("2026-03-04T06-00-00.flac")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == sum(1 for o in outcomes.values() if o["windows"])
    assert 'src="data:audio/mpeg;base64,' in page
    assert "http" not in page
    site.asd(*compare)
    assert {(o["machine"], o["setting"]): o for o in json.loads(capsys.readouterr().out)} == outcomes


def test_an_alarm_of_many_settings_is_one_occasion():
    def outcome(setting: str, *spans: tuple[float, float | None]) -> Outcome:
        found = [
            ArchiveAlarm(machine="m", raised_utc_s=a, cleared_utc_s=b, level=Level.ALERT, trigger=None, reason="",
                         file="f", start_s=0.0, duration_s=1.0)
            for a, b in spans
        ]  # fmt: skip
        return Outcome(setting, "m", "", last_utc_s=1000.0, alarms=found)

    found = occasions([outcome("a", (10, 20), (100, None)), outcome("b", (15, 30)), outcome("c", (25, 28), (40, 50))])
    assert [(o.begins_utc_s, o.ends_utc_s, sorted(o.raised)) for o in found] == [
        (10, 30, ["a", "b", "c"]),
        (40, 50, ["c"]),
        (100, 1000, ["a"]),
    ]


def test_real_recordings_of_a_compressor_score_as_with_score(shared_dir, tmp_path, capsys):
    machine = {"id": "compressor", "source": {"kind": "stdin", "rate_hz": 48_000}, "window_s": 2, "hop_s": 2}
    settings = {"agent": {"id": "t", "state_dir": str(tmp_path / "state")}, "machines": [machine]}
    path, sound = str(tmp_path / "agent.yaml"), shared_dir / "data" / "compressor"
    (tmp_path / "agent.yaml").write_text(yaml.safe_dump(settings))
    stored, out = str(tmp_path / "stored"), str(tmp_path / "out")
    assert main(["archive", "calibrate", "-c", path, str(sound / "run"), "-o", stored, "--promote", *HERE]) == 0
    assert main(["archive", "score", "-c", path, str(sound), "-o", out, "--engine", "processes", "--workers", "2"]) == 0
    capsys.readouterr()
    assert main(["score", "-c", path, "compressor", str(sound), "--json"]) == 0
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    check_equal(windows(tmp_path / "out"), sorted(expected, key=lambda row: (row["file"], row["index"])))
    assert {row["state"] for row in expected} >= {"normal", "not_assessable"}


def test_without_ray_processes_do_the_work_and_ray_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not Engine().ray
    with pytest.raises(UsageError, match=r"asd-agent\[archive\]"):
        assert Engine("ray").ray


def test_an_extra_that_is_missing_is_named(site, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    site.asd("archive", "score", tmp_path, "-o", tmp_path / "out", code=2)
    assert "pip install 'asd-agent[archive]'" in capsys.readouterr().err
