"""The synthetic challenge: its layout, its determinism, and that its physics is in the sound."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asd_agent.errors import UsageError
from asd_train import cli
from asd_train.data import ClassMap, DataSource, load_clips, training_clips
from asd_train.data.tables import read_rows
from asd_train.synth import Counts, draw_machines, sound, write_challenge

SMALL = Counts(source=6, target=2, test=8, supplemental=3)


def digests(root: Path):
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


def test_layout_is_that_of_the_challenge(tiny_challenge):
    clips = load_clips([DataSource(path=str(tiny_challenge))])
    assert {c.year for c in clips} == {2025}
    for machine in ("Blower", "GearPump"):
        own = [c for c in clips if c.machine == machine]
        counts = {
            key: sum(key in (c.split, c.domain, c.label) for c in own) for key in ("train", "test", "supplemental")
        }
        assert counts == {"train": 20, "test": 8, "supplemental": 4}
        test = [(c.domain, c.label) for c in own if c.split == "test"]
        assert {pair: test.count(pair) for pair in test} == dict.fromkeys(
            [(d, la) for d in ("source", "target") for la in ("normal", "anomaly")], 2
        )
        assert {c.attributes for c in own if c.domain == "source" and c.kind == "clip"}.isdisjoint(
            {c.attributes for c in own if c.domain == "target"}
        )
    assert {c.machine: c.kind for c in clips if c.split == "supplemental"} == {"Blower": "noise", "GearPump": "clean"}
    assert len(ClassMap.build(training_clips(clips))) > 4


def test_table_carries_names_as_released(tiny_challenge):
    rows = read_rows(tiny_challenge / "dev_data/raw/Blower/attributes_00.csv")
    assert rows[0][:3] == ["file_name", "d1p", "d1v"]
    assert rows[1][0].startswith("Blower/train/section_00_source_train_normal_0000_")
    assert len(rows) == 1 + 20 + 8


def test_same_seed_same_bytes_for_any_workers_and_counts(tmp_path):
    machines = draw_machines(2, seed=5, seconds=0.5)
    write_challenge(tmp_path / "a", machines, SMALL, workers=1)
    write_challenge(tmp_path / "b", machines, SMALL, workers=2)
    write_challenge(tmp_path / "c", machines, replace(SMALL, test=12, supplemental=0), workers=1)
    a, b, c = (digests(tmp_path / x) for x in "abc")
    assert a == b
    wavs = {name for name in a if name.endswith(".wav") and "supplemental" not in name}
    assert {name: c[name] for name in wavs} == {name: a[name] for name in wavs}
    assert draw_machines(2, seed=6, seconds=0.5) != machines


def test_evaluation_set_hides_its_labels_and_the_list_tells_them(tmp_path):
    write_challenge(tmp_path, draw_machines(2, 1, 0.5), SMALL, evaluation=1, workers=1)
    names = sorted(p.name for p in (tmp_path / "eval_data/raw/GearPump/test").iterdir())
    assert names == [f"section_00_{n:04d}.wav" for n in range(8)]
    hidden = load_clips([DataSource(path=str(tmp_path), machines=("GearPump",))])
    assert {c.label for c in hidden if c.split == "test"} == {""}
    known = load_clips(
        [DataSource(path=str(tmp_path), machines=("GearPump",), ground_truth=str(tmp_path / "eval_data_list.csv"))]
    )
    assert sorted((c.domain, c.label) for c in known if c.split == "test") == sorted(
        [(d, la) for d in ("source", "target") for la in ("normal", "anomaly")] * 2
    )
    assert all("/test/" not in row[0] for row in read_rows(tmp_path / "eval_data/raw/GearPump/attributes_00.csv"))


def test_machines_differ_and_every_kind_of_shift_occurs():
    machines = draw_machines(14, seed=0)
    assert len({m.name for m in machines}) == 14
    assert machines[7].name == "Blower2"
    shifts = set()
    for m in machines:
        s, t = m.source[0], m.target[0]
        shifts |= {k for k in ("speed", "load", "site", "microphone") if getattr(s, k) != getattr(t, k)}
        assert m.seconds in (6, 8, 10, 12)
    assert shifts == {"speed", "load", "site", "microphone"}
    assert [m.hidden for m in machines[:3]] == [False, False, True]
    assert machines[2].attributes(machines[2].source[0]) == ()


def spectrum(samples):
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2


def test_the_shaft_is_heard_and_follows_the_speed():
    """The first gear-mesh line of a clean pump lies where shaft x teeth says, for both speeds."""
    machine = draw_machines(2, seed=4, seconds=4.0)[1]
    for speed in (0, 1):
        condition = replace(machine.source[0], speed=speed, load=0, microphone=1)
        power = spectrum(sound.clean(machine, condition, np.random.default_rng(1)))
        mesh_hz = machine.shaft_hz * sound.SPEED_STEP**speed * machine.teeth
        f = np.fft.rfftfreq(4 * sound.RATE_HZ, 1 / sound.RATE_HZ)
        around = (f > 0.8 * mesh_hz) & (f < 1.2 * mesh_hz)
        assert f[around][power[around].argmax()] == pytest.approx(mesh_hz, rel=0.025)


@pytest.mark.parametrize("fault", ["bearing", "imbalance", "squeal", "leak", "knocks", "gear", "rub"])
def test_every_fault_changes_the_sound_by_its_level(fault):
    machine = draw_machines(2, seed=2, seconds=1.0)[1]
    healthy, faulty = (
        sound._machine(machine, machine.source[0], f, sound.RATE_HZ, np.random.default_rng(3)) for f in (None, fault)
    )
    difference = sound._rms(faulty - healthy) / sound._rms(healthy)
    assert 10 ** (-40 / 20) < difference < 10 ** (6 / 20)  # -22 to -8 dB, coloured by the body


def test_command_writes_and_refuses(tmp_path, capsys):
    arguments = ["synth", str(tmp_path / "out"), "--machines", "1", "--source", "2", "--target", "1", "--test", "4"]
    arguments += ["--supplemental", "1", "--seconds", "0.5", "--workers", "1"]
    assert cli.main(arguments) == 0
    assert "8 clips of 1 machines" in capsys.readouterr().out
    assert cli.main(arguments) == 2
    assert "is not empty" in capsys.readouterr().err
    info = soundfile.info(str(next((tmp_path / "out").rglob("*.wav"))))
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (16000, 1, "PCM_16", 8000)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--test", "6"], "multiple of 4"),
        (["--machines", "0"], "at least one machine"),
        (["--evaluation", "9"], "--evaluation cannot exceed"),
        (["--seconds", "0"], "--seconds must lie"),
        (["--seed", "-1"], "cannot be negative"),
    ],
)
def test_wrong_arguments_end_in_one_line(tmp_path, capsys, extra, message):
    assert cli.main(["synth", str(tmp_path / "out"), *extra]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_counts_are_checked():
    with pytest.raises(UsageError, match="at least 1 source clip"):
        Counts(source=0)
