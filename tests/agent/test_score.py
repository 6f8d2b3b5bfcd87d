"""`asd-agent calibrate`, `score` and `embed` as a user runs them, on files of all kinds."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import soundfile
import yaml

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.capture import open_source
from asd_agent.capture.simulate import machine_blocks
from asd_agent.cli import main
from asd_agent.cli.rows import COLUMNS
from asd_agent.scoring.pipeline import open_pipeline
from asd_agent.windowing.windower import Windower

RATE = 16_000


def machine_sound(seconds: float, seed: int = 0, faults: tuple[config.Fault, ...] = ()) -> np.ndarray:
    source = config.SimulatedSource(seed=seed, duration_s=seconds, pace="fast", faults=list(faults))
    return np.concatenate([block.samples for block in machine_blocks(source)])[:, 0]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with recordings, a configuration, and a promoted baseline."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "normal").mkdir()
    for i in range(3):
        soundfile.write(folder / "normal" / f"2026-03-0{i + 1}.wav", machine_sound(24, seed=i), RATE)
    soundfile.write(folder / "faulty.flac", machine_sound(12, 9, (config.Fault(kind="bearing", level_db=0),)), RATE)
    settings = {
        "agent": {"id": "t", "state_dir": str(folder / "state")},
        "machines": [
            {"id": "m", "source": {"kind": "stdin", "rate_hz": RATE}, "window_s": 2, "hop_s": 1},
        ],
    }
    (folder / "agent.yaml").write_text(yaml.safe_dump(settings))
    assert (
        main(["calibrate", "-c", str(folder / "agent.yaml"), "m", "--from", str(folder / "normal"), "--promote"]) == 0
    )
    return folder


def score(site, *paths, capsys) -> list[dict[str, str]]:
    capsys.readouterr()
    assert main(["score", "-c", str(site / "agent.yaml"), "m", *map(str, paths)]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_a_fault_stands_out_and_says_why(site, capsys):
    rows = score(site, site / "faulty.flac", site / "normal", capsys=capsys)
    assert list(rows[0])[: len(COLUMNS)] == COLUMNS
    faulty = [row for row in rows if row["file"].endswith("faulty.flac")]
    normal = [row for row in rows if "normal" in row["file"]]
    assert len(faulty) == 11
    assert {row["state"] for row in faulty} == {"anomalous"}
    assert {row["state"] for row in normal} == {"normal"}
    assert all(row["reason"] for row in faulty)
    assert float(faulty[0]["score"]) == pytest.approx(-np.log10(float(faulty[0]["p_value"])), abs=1e-3)


def test_live_replay_and_score_give_identical_numbers(site, capsys):
    """The daemon's way (source, windower, pipeline), the file read in other pieces, against the command's CSV."""
    rows = score(site, site / "faulty.flac", capsys=capsys)
    settings = config.load(site / "agent.yaml")
    machine = settings.machines[0]
    pipeline = open_pipeline(machine, BaselineStore(settings.state_dir, "m").active())
    samples, rate = soundfile.read(site / "faulty.flac", dtype="int16")
    raw = site / "faulty.raw"
    raw.write_bytes(samples.tobytes())
    source = config.CommandSource(argv=["cat", str(raw)], rate_hz=rate)
    results = []
    with open_source(source, [0]) as live:
        windower = Windower(rate, machine.window_s, machine.hop_s, pipeline.rates)
        while len(results) < len(rows):
            block = live.read(1.0)
            if block is not None:
                results += [pipeline.step(w).result for w in windower.push(block, 0)]
    for row, result in zip(rows, results[: len(rows)], strict=True):
        assert row["start_s"] == f"{result.start_s:.3f}"
        assert row["score"] == f"{result.score:.6g}"
        assert row["p_value"] == f"{result.p_value:.6g}"
        assert row["reason"] == result.reason


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("a.wav", "PCM_U8"),
        ("b.wav", "PCM_24"),
        ("c.wav", "FLOAT"),
        ("d.flac", "PCM_16"),
        ("e.ogg", "VORBIS"),
        ("f.mp3", None),
    ],
)
def test_formats(site, tmp_path, capsys, name, subtype):
    soundfile.write(tmp_path / name, machine_sound(6, 5), RATE, subtype=subtype)
    rows = score(site, tmp_path / name, capsys=capsys)
    assert len(rows) >= 4
    assert {row["quality"] for row in rows} == {"ok"}


def test_a_clip_shorter_than_a_window_is_a_row_that_says_so(site, tmp_path, capsys):
    soundfile.write(tmp_path / "short.wav", machine_sound(1.5), RATE)
    (row,) = score(site, tmp_path / "short.wav", capsys=capsys)
    assert (row["state"], row["quality"], row["score"]) == ("not_assessable", "short", "")


def test_nan_samples_are_not_assessable(site, tmp_path, capsys):
    sound = machine_sound(4)
    sound[20_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", sound, RATE, subtype="FLOAT")
    rows = score(site, tmp_path / "nan.wav", capsys=capsys)
    assert [row["state"] for row in rows].count("not_assessable") >= 1
    assert all(row["score"] == "" for row in rows if row["state"] == "not_assessable")


def bad_files(folder) -> dict[str, tuple[object, str]]:
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no sound")
    soundfile.write(folder / "slow.wav", machine_sound(4)[::4], 4000)
    return {
        "empty.wav": (folder / "empty.wav", "empty"),
        "text.wav": (folder / "text.wav", "text.wav"),
        "slow.wav": (folder / "slow.wav", "4000 Hz"),
        "absent.wav": (folder / "absent.wav", "no such file"),
    }


@pytest.mark.parametrize("name", ["empty.wav", "text.wav", "slow.wav", "absent.wav"])
def test_a_bad_file_is_one_line_and_exit_code_1(site, tmp_path, capsys, name):
    path, words = bad_files(tmp_path)[name]
    capsys.readouterr()
    assert main(["score", "-c", str(site / "agent.yaml"), "m", str(path)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert name in lines[0]
    assert words in lines[0]


def test_a_bad_file_among_good_ones_loses_none_of_them(site, tmp_path, capsys):
    (tmp_path / "text.wav").write_text("this is no sound")
    out = tmp_path / "scores.csv"
    arguments = ["score", "-c", str(site / "agent.yaml"), "m", str(tmp_path / "text.wav"), str(site / "faulty.flac")]
    assert main([*arguments, "-o", str(out)]) == 1
    assert len(list(csv.DictReader(out.open()))) == 11
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_baseline_the_remedy_is_named(site, tmp_path, capsys):
    text = (site / "agent.yaml").read_text().replace(str(site / "state"), str(tmp_path / "other"))
    (tmp_path / "agent.yaml").write_text(text)
    assert main(["score", "-c", str(tmp_path / "agent.yaml"), "m", str(site / "faulty.flac")]) == 1
    assert "asd-agent calibrate" in capsys.readouterr().err


def test_another_window_than_the_baseline_s_is_refused(site, tmp_path, capsys):
    (tmp_path / "agent.yaml").write_text((site / "agent.yaml").read_text().replace("window_s: 2", "window_s: 4"))
    assert main(["score", "-c", str(tmp_path / "agent.yaml"), "m", str(site / "faulty.flac")]) == 1
    assert "window_s: 4" in capsys.readouterr().err


def test_too_few_windows_are_refused_with_the_number_needed(site, tmp_path, capsys):
    soundfile.write(tmp_path / "little.wav", machine_sound(4), RATE)
    assert main(["calibrate", "-c", str(site / "agent.yaml"), "m", "--from", str(tmp_path / "little.wav")]) == 1
    assert "at least 6" in capsys.readouterr().err


def test_spoilt_parts_of_a_calibration_are_left_out_and_listed(site, tmp_path, capsys):
    sound = machine_sound(40, seed=3)
    sound[20 * RATE : 24 * RATE] = 0.0
    soundfile.write(tmp_path / "with-silence.wav", sound, RATE)
    text = (site / "agent.yaml").read_text().replace(str(site / "state"), str(tmp_path / "state"))
    (tmp_path / "agent.yaml").write_text(text)
    assert (
        main(["calibrate", "-v", "-c", str(tmp_path / "agent.yaml"), "m", "--from", str(tmp_path / "with-silence.wav")])
        == 0
    )
    out = capsys.readouterr().out
    assert "left out" in out
    assert "with-silence.wav 2" in out


def test_embed_writes_one_array_per_embedding(tmp_path, capsys):
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", machine_sound(4, seed=ord(name)), RATE)
    out = tmp_path / "out.npz"
    assert main(["embed", "--bundle", "spectral", str(tmp_path), "-o", str(out)]) == 0
    with np.load(out) as stored:
        assert [name.rsplit("/", 1)[-1] for name in stored["file"]] == ["a.wav", "b.wav"]
        assert {k: stored[k].shape[0] for k in stored.files if k != "file"} == dict.fromkeys(
            ("logmel", "logmel_stats", "background", "fine_spectrum", "modulation", "band_modulation"), 2
        )
