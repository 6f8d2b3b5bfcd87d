"""What the commands do with wishes and mistakes: wrong files, sweeps, snapshots, missing matplotlib, launchers."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asd_train import cli
from asd_train.commands.fit import points
from asd_train.kinds import command_of
from asd_train.launch import asked_processes

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"


def fit(data: Path, *more: str) -> int:
    small = ["--set", "train.steps=2", "--set", "train.accumulate=1"]
    return cli.main(["fit", str(CONFIGS / "a_eat_lora.yaml"), "--data", str(data), "--tiny", *small, *more])


@pytest.mark.parametrize(
    ("name", "command", "right"),
    [
        ("b_ensemble_1", "fit", "asd-train ensemble"),
        ("b_ensemble_1", "evaluate", "asd-train ensemble"),
        ("own_pretrain", "fit", "asd-train pretrain"),
        ("own_heldout", "fit", "asd-train distil"),
        ("baseline_mse", "fit", "asd-train evaluate"),
        ("a_eat_lora", "pretrain", "asd-train fit"),
        ("a_eat_lora", "ensemble", "asd-train fit"),
    ],
)
def test_a_file_for_another_command_names_it(
    name: str, command: str, right: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, str(CONFIGS / f"{name}.yaml"), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"not a configuration for asd-train {command}; use {right} " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_is_printed_as_it_is_written(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    epilog = importlib.import_module(f"asd_train.commands.{name}").EPILOG
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    assert epilog in capsys.readouterr().out
    for command in re.findall(r"^  asd-train (\w+) (configs/train/\w+\.yaml)?", epilog, re.MULTILINE):
        assert command[0] in cli.COMMANDS
        if command[1]:
            path = CONFIGS.parents[1] / command[1]
            assert f"asd-train {command[0]} " in f"{command_of(path)} " or command[0] == "embed"


def test_every_configuration_is_of_a_known_kind() -> None:
    assert all(command_of(path) for path in CONFIGS.glob("*.yaml") if "distil" not in path.name)


def test_tiny_keeps_what_the_command_line_sets(tiny_challenge: Path, tmp_path: Path) -> None:
    assert fit(tiny_challenge, "-o", str(tmp_path / "run")) == 0
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) >= 1
    assert json.loads((tmp_path / "run/system/system.json").read_bytes())["training"]["steps"] == 2


def test_a_sweep_makes_a_run_for_each_value(tiny_challenge: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    assert fit(tiny_challenge, "--sweep", "train.lr=1e-3,2e-3", "-o", str(out)) == 0
    rates = {
        folder.name: json.loads((folder / "system/system.json").read_bytes())["training"]["config"]["train"]["lr"]
        for folder in out.iterdir()
    }
    assert rates == {"train.lr=1e-3": 1e-3, "train.lr=2e-3": 2e-3}


def test_points_of_a_sweep() -> None:
    assert points([]) == [[]]
    assert points(["a=1,2", "b=[3,4],[5]"]) == [
        ["a=1", "b=[3,4]"], ["a=1", "b=[5]"], ["a=2", "b=[3,4]"], ["a=2", "b=[5]"],
    ]  # fmt: skip


def test_a_bad_sweep_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", str(CONFIGS / "a_eat_lora.yaml"), "--sweep", "train.lr"]) == 2
    assert "not of the form KEY=VALUE,VALUE" in capsys.readouterr().err


def test_the_curve_over_snapshots(tiny_challenge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "curve"
    assert fit(tiny_challenge, "--set", "train.snapshots=[1]", "-o", str(run)) == 0
    evaluate = ["evaluate", str(run), "--data", str(tiny_challenge), "--bootstrap", "0", "--no-plots", "-o", str(out)]
    assert cli.main([*evaluate, "--snapshots"]) == 0
    assert list(json.loads((out / "curve.json").read_bytes())) == ["1", "2"]
    assert "| 2 |" in (out / "curve.md").read_text()
    assert "too good for other clips" in capsys.readouterr().out
    assert cli.main(["evaluate", str(tmp_path), "--snapshots", "-o", str(out)]) == 2
    assert "no snapshots in it" in capsys.readouterr().err


def test_figures_are_printed_without_matplotlib(tiny_challenge: Path, tmp_path: Path) -> None:
    """In a process where it cannot be imported."""
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'matplotlib' else find(name, *rest)\n"
        "from asd_train import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    config = tmp_path / "baseline.yaml"
    config.write_text(
        f"name: b\ndata: [{{path: {tiny_challenge}}}]\nautoencoder: {{score: mse, epochs: 1, batch_size: 512}}\n"
    )
    command = [sys.executable, "-c", code, "evaluate", config, "--bootstrap", "0", "-o", tmp_path / "out"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| **all** |" in done.stdout
    assert "no pictures without matplotlib" in done.stderr


@pytest.mark.parametrize(
    ("command", "count"),
    [
        ("python accelerate launch --cpu --num_processes 2 -m asd_train fit x", 2),
        ("accelerate launch --num_processes=3 -m asd_train", 3),
        ("python -m asd_train fit", 1),
        ("bash -c asd-train --num_processes 4", 1),
    ],
)
def test_asked_processes(command: str, count: int) -> None:
    assert asked_processes(command) == count


@pytest.mark.slow
def test_accelerate_on_cpus_uses_all_processes(tiny_challenge: Path, tmp_path: Path) -> None:
    accelerate = Path(sys.executable).with_name("accelerate")
    launch = [accelerate, "launch", "--cpu", "--num_processes", "2", "-m", "asd_train"]
    small = ["--tiny", "--set", "train.steps=2", "--set", "train.batch_size=4"]
    command = [*launch, "fit", CONFIGS / "a_eat_lora.yaml", "--data", tiny_challenge, *small, "-o", tmp_path / "run"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ACCELERATE")}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=250, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "run/system/system.json").read_bytes())["training"]["processes"] == 2
