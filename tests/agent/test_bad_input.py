"""What a person gets wrong, or a disk: one clear line on stderr, the right exit code, nothing lost, no traceback."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from asd_agent.baseline import BaselineStore
from asd_agent.cli import main
from asd_agent.errors import BaselineError

RATE = 16_000


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def configure(folder, state_dir, name="agent.yaml", **machine):
    source = machine.pop("source", {"kind": "stdin", "rate_hz": RATE})
    settings = {
        "agent": {"id": "a", "state_dir": str(state_dir)},
        "machines": [{"id": "m", "source": source, "window_s": 1, "hop_s": 0.5} | machine],
    }
    (folder / name).write_text(yaml.safe_dump(settings))
    return str(folder / name)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    soundfile.write(folder / "normal.wav", noise(12), RATE)
    path = configure(folder, folder / "state")
    assert main(["calibrate", "-c", path, "m", "--from", str(folder / "normal.wav"), "--promote"]) == 0
    return folder


@pytest.fixture
def own_site(site, tmp_path):
    """A copy that may be damaged: its configuration and the folder of its baseline."""
    shutil.copytree(site / "state", tmp_path / "state")
    (folder,) = (tmp_path / "state").glob("machines/m/baselines/*")
    return configure(tmp_path, tmp_path / "state"), folder


def refused(capsys, *arguments: object, code: int = 1) -> str:
    """Run a command that must fail; its one line."""
    capsys.readouterr()
    assert main(list(map(str, arguments))) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("asd-agent: ")
    return line


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "asd_agent", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


# -- the state directory


@pytest.mark.parametrize("command", [["run"], ["calibrate", "m", "--from", "normal.wav"]])
def test_a_state_directory_that_cannot_be_written(site, tmp_path, command):
    (tmp_path / "file").touch()
    path = configure(tmp_path, tmp_path / "file" / "state")
    words = [str(site / word) if word.endswith(".wav") else word for word in command]
    done = run(words[0], "-c", path, *words[1:])
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert str(tmp_path / "file") in line
    assert "written" in line


def test_a_socket_group_that_does_not_exist_and_a_path_that_is_too_long(tmp_path):
    text = configure(tmp_path, tmp_path / "state")
    settings = yaml.safe_load((tmp_path / "agent.yaml").read_text())
    for change, words in (
        ({"socket_group": "nobody-has-this"}, "agent.socket_group"),
        ({"socket": str(tmp_path / ("x" * 120))}, "agent.socket"),
    ):
        (tmp_path / "agent.yaml").write_text(yaml.safe_dump({**settings, "agent": {**settings["agent"], **change}}))
        done = run("run", "-c", text)
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert words in line


def test_without_a_daemon_its_commands_say_so(site, capsys):
    path = site / "agent.yaml"
    for command in (["status"], ["status", "--watch"], ["alarms", "ack"], ["alarms", "shelve"], ["alarms", "unshelve"]):
        words, machine = command, ["m"] if command[0] == "alarms" else []
        assert "the daemon is not running" in refused(capsys, *words, "-c", path, *machine)
    assert "no database yet" in refused(capsys, "alarms", "list", "-c", path)


def test_a_machine_that_is_not_configured_is_named_with_those_that_are(site, capsys):
    path = site / "agent.yaml"
    for command in (["score", "x", "a.wav"], ["calibrate", "x"], ["baseline", "show", "x"], ["alarms", "ack", "x"]):
        words = 2 if command[0] in ("baseline", "alarms") else 1
        line = refused(capsys, *command[:words], "-c", path, *command[words:], code=2)
        assert "no machine 'x' (there are: m)" in line


# -- baselines


def test_a_tampered_baseline(own_site, site, capsys):
    path, folder = own_site
    manifest = json.loads((folder / "baseline.json").read_text())
    manifest["window_s"] = 2.0
    (folder / "baseline.json").write_text(json.dumps(manifest))
    for command in (["score", "m", str(site / "normal.wav")], ["baseline", "show", "m"], ["baseline", "promote", "m"]):
        words = 2 if command[0] == "baseline" else 1
        extra = [folder.name] if "promote" in command else []
        line = refused(capsys, *command[:words], "-c", path, *command[words:], *extra)
        assert "baseline.json: the checksum does not match" in line
    assert main(["baseline", "list", "-c", path]) == 0
    assert "checksum" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["baseline.json", "arrays.npz", "SHA256SUMS"])
def test_a_file_of_a_baseline_is_gone(own_site, site, capsys, name):
    path, folder = own_site
    (folder / name).unlink()
    line = refused(capsys, "score", "-c", path, "m", site / "normal.wav")
    assert name in line
    assert "calibrate again" in line


def test_pointers_that_cannot_be_read(own_site, site, capsys, tmp_path):
    path, folder = own_site
    (tmp_path / "state/machines/m/pointers.json").write_text("{")
    assert folder.name in refused(capsys, "score", "-c", path, "m", site / "normal.wav")
    (tmp_path / "state/machines/m/pointers.json").unlink()
    assert main(["baseline", "promote", "-c", path, "m", folder.name]) == 0
    assert main(["score", "-c", path, "m", str(site / "normal.wav"), "-o", str(tmp_path / "out.csv")]) == 0


@pytest.mark.parametrize("version", ["../..", "../../..", "", ".", "x"])
def test_a_version_is_a_name_and_no_path(site, version):
    with pytest.raises(BaselineError, match="no baseline"):
        BaselineStore(site / "state", "m").load(version)


def test_a_calibration_that_fails_leaves_everything_as_it_was(own_site, capsys, tmp_path):
    path, folder = own_site
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(RATE * 12), RATE)
    line = refused(capsys, "calibrate", "-c", path, "m", "--from", silent, "--promote")
    assert "left out" in line
    assert "silence" in line
    store = BaselineStore(tmp_path / "state", "m")
    assert store.versions() == [store.pointers().active] == [folder.name]


def test_a_baseline_that_does_not_fit_the_configuration_is_never_made_active(own_site, site, capsys, tmp_path):
    path, folder = own_site
    other = configure(tmp_path, tmp_path / "state", "other.yaml", window_s=2)
    assert main(["calibrate", "-c", other, "m", "--from", str(site / "normal.wav")]) == 0
    assert "window_s: 1" in refused(capsys, "baseline", "promote", "-c", path, "m")
    assert BaselineStore(tmp_path / "state", "m").pointers().active == folder.name


# -- bundles


def test_a_bundle_that_is_not_there_or_damaged(site, tmp_path, capsys):
    path = configure(tmp_path, site / "state", bundle=str(tmp_path))
    assert "no bundle.json" in refused(capsys, "score", "-c", path, "m", site / "normal.wav")
    (tmp_path / "bundle.json").write_text("{}")
    assert "bundle.json" in refused(capsys, "score", "-c", path, "m", site / "normal.wav")
    path = configure(tmp_path, site / "state", bundle="nowhere")
    assert "no such bundle" in refused(capsys, "run", "-c", path)


# -- recordings


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_width_of_wav_can_calibrate(tmp_path, capsys, subtype):
    soundfile.write(tmp_path / "a.wav", noise(12, 3), RATE, subtype=subtype)
    path = configure(tmp_path, tmp_path / "state")
    assert main(["calibrate", "-v", "-c", path, "m", "--from", str(tmp_path / "a.wav")]) == 0
    assert "23 of 23 windows are usable" in capsys.readouterr().out


def test_a_truncated_recording_is_read_as_far_as_it_goes_and_the_table_stays_clean(site, tmp_path):
    whole = (site / "normal.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2 + 1])
    done = run("score", "-c", site / "agent.yaml", "m", tmp_path / "cut.wav")
    assert done.returncode == 0
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 10
    assert {row["file"] for row in rows} == {str(tmp_path / "cut.wav")}
    (line,) = done.stderr.strip().splitlines()
    assert "cut off or damaged" in line


def test_nan_in_a_calibration_is_left_out_and_listed(site, tmp_path, capsys):
    sound = noise(12)
    sound[RATE * 4 + 5] = np.nan
    soundfile.write(tmp_path / "nan.wav", sound, RATE, subtype="FLOAT")
    path = configure(tmp_path, tmp_path / "state")
    assert main(["calibrate", "-v", "-c", path, "m", "--from", str(tmp_path / "nan.wav")]) == 0
    out = capsys.readouterr().out
    assert "values that are no numbers 2" in out
    assert "nan.wav 3.5-4.5 s: values that are no numbers" in out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(site):
    done = run("score", "-c", site / "agent.yaml", "m", site / "normal.wav", "-o", "/dev/full")
    assert done.returncode == 1
    assert done.stderr.strip() == "asd-agent: No space left on device"


# -- the command line


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--minutes", "-3"],
        ["demo", "--minutes", "soon"],
        ["calibrate", "-c", "x", "m", "--duration", "0"],
        ["calibrate", "-c", "x", "m", "--from"],
        ["alarms", "shelve", "-c", "x", "m", "--for", "nan"],
        ["baseline", "show", "-c", "x"],
        ["run", "--nonsense"],
        [],
    ],
)
def test_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "agent.yaml"),
        (b"- 1", "agent.yaml"),
        (b"\xff\xfe", "cannot be read"),
        (b"agent: {id: a}\nmachines: []\n", "machines"),
        (b"agent: {id: a}\nmachines: [{id: m, source: {kind: command, argv: [], rate_hz: 16000}}]\n", "argv"),
        (b"agent: {id: a}\nmachines: [{id: m, source: {kind: simulated, rate_hz: 16000.5}}]\n", "rate_hz"),
    ],
)
def test_a_configuration_that_is_none(tmp_path, capsys, content, words):
    (tmp_path / "agent.yaml").write_bytes(content)
    for command in ("run", "status", "doctor"):
        assert words in refused(capsys, command, "-c", tmp_path / "agent.yaml", code=2)


def test_doctor_looks_at_every_machine(tmp_path, capsys):
    settings = {
        "agent": {"id": "a", "state_dir": str(tmp_path / "state")},
        "machines": [
            {"id": "index", "source": {"kind": "microphone", "device": "hw:0"}},
            {"id": "absent", "source": {"kind": "file", "path": str(tmp_path / "absent.wav")}},
            {"id": "fine", "source": {"kind": "simulated", "pace": "fast"}},
        ],
    }
    (tmp_path / "agent.yaml").write_text(yaml.safe_dump(settings))
    assert main(["doctor", "-c", str(tmp_path / "agent.yaml")]) == 1
    out = capsys.readouterr().out
    assert "FAIL source of index" in out
    assert "FAIL source of absent" in out
    assert "ok   source of fine" in out
