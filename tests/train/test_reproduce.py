"""asd-train reproduce: each report end to end in its tiny form, the order of its commands, resuming."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from asd_train import cli
from asd_train.reproduce.plan import REPORTS
from asd_train.reproduce.table import write_table

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"
SUBMITTED = {"A": 4, "B": 4, "C": 4, "D": 4, "E": 1}  # systems that each report submits


def reproduce(name: str, data: Path, out: Path, *more: str) -> int:
    given = ["--data", str(data), "-o", str(out), "--configs", str(CONFIGS), "--bootstrap", "20", "--device", "cpu"]
    return cli.main(["reproduce", name, *given, *more])


@pytest.mark.slow
@pytest.mark.parametrize("report", REPORTS)
def test_a_report_end_to_end(report: str, tiny_challenge: Path, tmp_path: Path) -> None:
    assert reproduce(report, tiny_challenge, tmp_path, "--tiny") == 0
    systems = json.loads((tmp_path / "reproduce.json").read_bytes())["systems"]
    assert len(systems) >= SUBMITTED[report]
    assert all(0 < row["score"] < 1 and row["interval"] for row in systems.values())
    table = (tmp_path / "reproduce.md").read_text()
    assert all(f"| {name} |" in table for name in systems)
    folders = [path for path in (tmp_path / "submission/task2").iterdir() if path.is_dir()]
    assert len(folders) == len(systems)
    for folder in folders:
        assert len(list(folder.glob("anomaly_score_*_section_00_test.csv"))) == 2
        assert folder.with_name(folder.name + ".meta.yaml").is_file()


def test_seeds_and_going_on(tiny_challenge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce("c_genrep", tiny_challenge, tmp_path, "--tiny", "--seeds", "2") == 0
    assert capsys.readouterr().out.count("--- asd-train") == 4  # fit and evaluate of each seed
    (tmp_path / "seed-1/results/c_genrep/results.json").unlink()
    assert reproduce("c_genrep", tiny_challenge, tmp_path, "--tiny", "--seeds", "2") == 0
    assert capsys.readouterr().out.count("--- asd-train") == 1
    row = json.loads((tmp_path / "reproduce.json").read_bytes())["systems"]["c_genrep"]
    assert row["seeds"] == 2
    assert row["deviation"] is not None


def test_the_order_of_report_b(tiny_challenge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce("B", tiny_challenge, tmp_path, "--dry-run") == 0
    commands = [shlex.split(line)[1:] for line in capsys.readouterr().out.splitlines()]
    made = [(command[0], Path(command[1]).stem) for command in commands]
    assert made.index(("pretrain", "b_eat_large_pretrain")) < made.index(("fit", "b_leat"))
    assert max(made.index(("fit", "b_leat")), made.index(("fit", "b_lbeats"))) < made.index(("fit", "b_fusion"))
    assert made.index(("evaluate", "b_fusion")) < made.index(("ensemble", "b_ensemble_1"))
    assert len(made) == len(set(made))
    assert not (tmp_path / "seed-0/runs").exists()


def test_one_system_brings_what_it_needs(
    tiny_challenge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce("a_ensemble", tiny_challenge, tmp_path, "--dry-run", "--seeds", "2") == 0
    out = capsys.readouterr().out
    assert "snapshots/step-00015000" in out
    assert "train.seed=1" in out
    assert str(tmp_path / "seed-1/runs/a_eat_lora") in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["X", "--data", "DATA"], "X: neither a report (A, B, C, D, E) nor one of a_eat_full"),
        (["A", "--data", "nowhere"], "nowhere: no such folder"),
        (["A", "--data", "DATA", "--seeds", "0"], "--seeds must be at least 1"),
        (["A", "--data", "DATA", "--configs", "nowhere"], "give the configurations with --configs"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tmp_path) if a == "DATA" else a for a in arguments]
    more = [] if "--configs" in arguments else ["--configs", str(CONFIGS)]
    assert cli.main(["reproduce", *given, *more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    results = [
        {"score": score, "means": {"pauc": score - 0.1}, "interval": [0.5, 0.7], "transductive": False, "selected": ""}
        for score in (0.6, 0.62)
    ]
    text = write_table(tmp_path, "test", {"one": results})
    assert "| one | 51.00 | 61.00 | 1.41 (2) | 50.00 to 70.00 |" in text
