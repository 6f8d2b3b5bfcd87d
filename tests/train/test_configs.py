"""Every file in configs/train, end to end in its tiny form: the loss falls, it is evaluated, and it is exported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from asd_agent.config.load import read
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder
from asd_export import cli as export_cli
from asd_train import cli, loop
from asd_train import config as cfg
from asd_train import fit as fit_module
from asd_train.autoencoder import Baseline
from asd_train.ensemble import Ensemble
from asd_train.kinds import command_of
from asd_train.model import load_system

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"
SHARED = CONFIGS.parents[2] / "shared" / "data"
FILES = sorted(CONFIGS.glob("*.yaml"))


def having(key: str) -> list[Any]:
    """The files with this top-level key."""
    return [pytest.param(path, id=path.stem) for path in FILES if key in yaml.safe_load(path.read_text())]


SYSTEMS, ENSEMBLES, BASELINES = having("model"), having("members"), having("autoencoder")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss on the same batches and the same random numbers before and after training."""
    seen: list[float] = []
    run = loop.train

    def train(learner: loop.Learner, feed: Any, *rest: Any) -> None:
        def loss() -> float:
            stream, values = feed(0, 0, 1), []
            for seed in range(6):
                torch.manual_seed(seed)
                with torch.no_grad():
                    values.append(learner.train()(next(stream))["loss"].item())
            return float(np.mean(values))

        state = {name: value.clone() for name, value in learner.state_dict().items()}
        seen.append(loss())
        learner.load_state_dict(state)  # batch statistics and scales have moved
        run(learner, feed, *rest)
        seen.append(loss())

    monkeypatch.setattr(fit_module, "train", train)
    return seen


@pytest.mark.parametrize("config", SYSTEMS)
def test_system(config: Path, tiny_challenge: Path, tmp_path: Path, watched: list[float]) -> None:
    run, results, bundle = tmp_path / "run", tmp_path / "results", tmp_path / "bundle"
    data = ["--data", str(tiny_challenge)]
    if "far" in yaml.safe_load(config.read_text()):  # the tiny challenge has one channel; tests/train/test_channels.py
        data += ["--set", "far=null"]
    assert cli.main(["fit", str(config), *data, "--tiny", "--set", "name=tiny", "-o", str(run)]) == 0
    if read(config, cfg.System).objective is not None:
        assert watched[1] < watched[0]
    assert cli.main(["evaluate", str(run), *data[:2], "--no-plots", "--bootstrap", "0", "-o", str(results)]) == 0
    figures = json.loads((results / "results.json").read_text())
    assert len(list(results.glob("anomaly_score_*.csv"))) == 2
    assert figures
    assert export_cli.main(["bundle", str(run / "system"), "--variants", "fp32", "-o", str(bundle)]) == 0
    system, card = load_system(run / "system")
    wave = 0.1 * torch.randn(1, 2 * card.rate_hz, generator=torch.Generator().manual_seed(0))
    if card.clip_s is not None:
        (embedding,) = Encoder(Bundle.load(bundle)).embed(wave[0].numpy()).values()
        assert np.abs(embedding - system(wave)[0].numpy()).max() < 1e-4


@pytest.mark.parametrize("config", BASELINES)
def test_baseline(config: Path, tiny_challenge: Path, tmp_path: Path) -> None:
    assert read(config, Baseline).autoencoder.epochs == 100
    quick = tmp_path / "quick.yaml"
    quick.write_text(config.read_text().replace("epochs: 100", "epochs: 1"))
    arguments = ["evaluate", str(quick), "--data", str(tiny_challenge), "--no-plots", "--bootstrap", "0"]
    assert cli.main([*arguments, "-o", str(tmp_path / "results")]) == 0
    assert len(list((tmp_path / "results").glob("anomaly_score_*.csv"))) == 2


@pytest.mark.parametrize("config", having("mechanism"))
def test_mechanism(config: Path, tiny_challenge: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", str(config), "--data", str(tiny_challenge), "--no-plots", "--bootstrap", "0"]
    assert cli.main([*arguments, "-o", str(tmp_path / "results")]) == 0
    assert len(list((tmp_path / "results").glob("anomaly_score_*.csv"))) == 2


@pytest.mark.parametrize("config", ENSEMBLES)
def test_ensemble(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = read(config, Ensemble)
    folders = {*(member.scores for member in ensemble.members), *ensemble.replace.values()}
    known = {path.stem for path in FILES}
    for folder in folders:
        assert re.sub(r"_\d+$", "", folder.removeprefix("results/")) in known, "no configuration makes this member"
    monkeypatch.chdir(tmp_path)
    for number, folder in enumerate(sorted(folders)):
        write_scores(Path(folder), number)
    assert cli.main(["ensemble", str(config), "--bootstrap", "0", "-o", "out"]) == 0
    assert len(list(Path("out").glob("anomaly_score_*.csv"))) == 2


@pytest.mark.parametrize("config", FILES, ids=lambda path: path.stem)
def test_dry_run_at_its_true_size(
    config: Path, tiny_challenge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever lies in configs/train. Without checkpoints sizes are counted by their names."""
    data = ["--data", str(tiny_challenge)]
    plan = ["reproduce", config.stem, *data, "--configs", str(CONFIGS), "-o", str(tmp_path), "--dry-run"]
    command = command_of(config)
    assert command is not None
    if command.split()[1] == "distil":
        if not SHARED.is_dir():
            pytest.skip("its sounds lie in ../shared, which is not here")
        assert cli.main(["distil", str(config), "--tiny", "--dry-run"]) == 0
        assert "million parameters" in capsys.readouterr().out
        return
    assert cli.main(plan) == 0
    assert f"asd-train {command.split()[1]} " in capsys.readouterr().out
    if command.split()[1] not in ("fit", "pretrain"):
        return
    content = yaml.safe_load(config.read_text())
    more = ["--set", "far=null"] if "far" in content else []
    scratch = "masking" in content and "checkpoint" not in content  # a step of the true size would take gigabytes
    assert cli.main([command.split()[1], str(config), *data, *more, "--dry-run", *["--tiny"] * scratch]) == 0
    out = capsys.readouterr().out
    if "training    none" not in out:
        assert float(re.search(r"parameters  ([\d.]+) million", out)[1]) > (0 if scratch else 0.9)  # type: ignore[index]
        assert "GB for weights" in out
    assert ("is not here: counted as" in out) != scratch


def test_a_plan_counts_what_the_report_prints(tiny_challenge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", str(CONFIGS / "b_leat.yaml"), "--data", str(tiny_challenge), "--dry-run"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "runs/b_eat_large_pretrain/encoder is not here: counted as eat large" in out
    assert "312.03 million, 9.45 million trained" in out


def write_scores(folder: Path, seed: int) -> None:
    """Scores of two machines, as asd-train evaluate leaves them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for machine in ("fan", "gearbox"):
        rows = [
            f"section_00_{domain}_test_{label}_{number:04d}_noAttribute.wav,{rng.normal()}"
            for number in range(4)
            for domain in ("source", "target")
            for label in ("normal", "anomaly")
        ]
        (folder / f"anomaly_score_{machine}_section_00_test.csv").write_text("\n".join(rows) + "\n")


def test_the_table_lists_every_configuration() -> None:
    text = (CONFIGS / "README.md").read_text()
    listed = set(re.findall(r"\(([a-z0-9_]+)\.yaml\)", text))
    assert listed == {path.stem for path in FILES}
