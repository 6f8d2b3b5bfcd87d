"""asd-train reproduce: each report end to end in its tiny form, the order of its commands, resuming."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from asd_agent.errors import ConfigError, UsageError
from asd_train import cli
from asd_train.model import load_system
from asd_train.reproduce.plan import REPORTS, Shelf
from asd_train.reproduce.submission import Meta, Team, meta_of, read_team
from asd_train.reproduce.table import write_table

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"
SUBMITTED = {"A": 4, "B": 4, "C": 4, "D": 4, "E": 1}  # systems that each report submits


def reproduce(name: str, data: Path, out: Path, *more: str) -> int:
    given = ["--data", str(data), "-o", str(out), "--configs", str(CONFIGS), "--bootstrap", "20", "--device", "cpu"]
    return cli.main(["reproduce", name, *given, *more])


def check_meta(meta: Meta, row: dict[str, Any]) -> None:
    """Figures are those of the table; whatever has a network has parameters."""
    figures = meta.results.development_dataset
    assert sorted(figures) == ["Blower", "GearPump"]
    assert all(set(values) == {"auc_source", "auc_target", "pauc"} for values in figures.values())
    harmonic = len(figures) / sum(1 / max(values["auc_target"], 1e-9) for values in figures.values())
    assert harmonic == pytest.approx(100 * row["means"]["auc_target"], abs=0.02)
    assert (meta.system.complexity.total_parameters > 0) != ("mechanism" in meta.submission.name)
    assert meta.submission.authors[0].lastname == "Lastname"


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
        meta = msgspec.yaml.decode((folder / f"{folder.name}.meta.yaml").read_bytes(), type=Meta)
        check_meta(meta, systems[meta.submission.name])


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


def test_the_meta_information_of_a_submission(
    tiny_challenge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    team = tmp_path / "team.yaml"
    author = {"lastname": "Wang", "firstname": "Y.", "email": "w@example.org", "affiliation": {"institute": "MYPS"}}
    team.write_text(yaml.safe_dump({"authors": [author], "source_code": "https://example.org/code"}))
    more = ["--tiny", "--label", "Wang_MYPS", "--authors", str(team)]
    assert reproduce("c_genrep", tiny_challenge, tmp_path / "out", *more) == 0
    folder = tmp_path / "out/submission/task2/Wang_MYPS_task2_1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "Wang_MYPS_task2_1.meta.yaml",
        "anomaly_score_Blower_section_00_test.csv",
        "anomaly_score_GearPump_section_00_test.csv",
        "decision_result_Blower_section_00_test.csv",
        "decision_result_GearPump_section_00_test.csv",
    ]
    content = yaml.safe_load((folder / "Wang_MYPS_task2_1.meta.yaml").read_text())
    assert list(content) == ["submission", "system", "results"]
    assert content["submission"]["authors"][0]["affiliation"]["institute"] == "MYPS"
    assert len(content["submission"]["abbreviation"]) <= 10
    described = content["system"]["description"]
    assert described["input_sampling_rate"] == "16 kHz"
    assert described["machine_learning_method"] == "BEATs (frozen), k-NN (domain_z), MEMMIXUP"
    assert described["external_data_usage"].endswith("BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt1.pt")
    system, _ = load_system(tmp_path / "out/seed-0/runs/c_genrep/system")
    assert content["system"]["complexity"]["total_parameters"] == sum(p.numel() for p in system.parameters())
    assert content["system"]["source_code"] == "https://example.org/code"
    results = json.loads((tmp_path / "out/seed-0/results/c_genrep/results.json").read_bytes())
    blower = results["machines"][0]
    assert blower["machine"] == "Blower"
    printed = {key: round(100 * value, 2) for key, value in blower["figures"].items()}
    assert content["results"]["development_dataset"]["Blower"] == printed
    shelf = Shelf.read(CONFIGS)
    with pytest.raises(UsageError, match="--label of letters and digits"):
        meta_of("c_genrep", "Wang & Co_task2_1", shelf, tmp_path / "out/seed-0", Team())
    team.write_text(yaml.safe_dump({"authors": [{"name": "Wang"}]}))
    with pytest.raises(ConfigError, match="authors"):
        read_team(str(team))
