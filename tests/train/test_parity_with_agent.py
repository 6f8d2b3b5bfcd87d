"""The border between training and edge: the same clip, the same bank, the same score."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from asd_agent.cli import main as agent
from asd_export.cli import main as export
from asd_train.cli import main as train

MACHINE = "GearPump"


@pytest.fixture(scope="module")
def run(tiny_challenge, tmp_path_factory):
    """An assembled system with a tiny random encoder; its clips are as long as the agent's windows."""
    folder = tmp_path_factory.mktemp("run")
    config = {
        "name": "tiny",
        "data": [{"path": str(tiny_challenge)}],
        "model": {"branches": [{"kind": "encoder", "encoder": "beats", "size": "tiny"}]},
        "clip_s": 2.0,
        "scoring": {"kind": "cosine"},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    assert train(["fit", str(folder / "tiny.yaml"), "-o", str(folder / "run")]) == 0
    return folder / "run"


def scores(path, file, score):
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream) if score else csv.reader(stream)
        rows = list(reader)
    return {r[file].rsplit("/", 1)[-1]: float(r[score]) for r in rows} if score else {a: float(b) for a, b in rows}


def agent_distances(bundle, raw, folder):
    """Calibrated by the agent on the training clips, and scored."""
    settings = {
        "agent": {"id": "t", "state_dir": str(folder / "state")},
        "machines": [
            {
                "id": "m",
                "source": {"kind": "stdin", "rate_hz": 16000},
                "window_s": 2.0,
                "hop_s": 2.0,
                "bundle": str(bundle),
                "quality": {"off_db": None},
            }
        ],
    }
    config = folder / "agent.yaml"
    config.write_text(yaml.safe_dump(settings))
    assert agent(["calibrate", "-c", str(config), "m", "--from", str(raw / "train"), "--promote"]) == 0
    table = folder / "scores.csv"
    assert agent(["score", "-c", str(config), "m", str(raw / "test"), "-o", str(table)]) == 0
    return scores(table, "file", "embedding_distance"), scores(table, "file", "score")


@pytest.mark.parametrize("kind", ["cosine", "whitened"])
def test_evaluate_and_the_agent_give_the_same_distance(run, tiny_challenge, tmp_path, kind):
    raw = tiny_challenge / "dev_data" / "raw" / MACHINE
    out = tmp_path / "results"
    options = ["--machine", MACHINE, "--scoring", kind, "--no-plots", "--bootstrap", "0", "--device", "cpu"]
    assert train(["evaluate", str(run), "-o", str(out), *options]) == 0
    bundle = tmp_path / "bundle"
    system = str(run / "system")
    assert export(["bundle", system, "-o", str(bundle), "--distance", kind, "--variants", "fp32"]) == 0
    ours = scores(out / f"anomaly_score_{MACHINE}_section_00_test.csv", 0, None)
    theirs, _ = agent_distances(bundle, raw, tmp_path)
    assert set(ours) == set(theirs)
    assert len(ours) == 8
    np.testing.assert_allclose([theirs[f] for f in ours], list(ours.values()), rtol=0, atol=1e-4)
    assert np.std(list(ours.values())) > 1e-3 * np.mean(list(ours.values()))  # the scores do differ


@pytest.fixture(scope="module")
def pretrained(tiny_challenge, tmp_path_factory):
    """A band-split encoder after a few steps of pre-training."""
    run = tmp_path_factory.mktemp("pretrain") / "run"
    config = Path(__file__).resolve().parents[2] / "configs/train/own_bandsplit_pretrain.yaml"
    assert train(["pretrain", str(config), "--data", str(tiny_challenge), "--tiny", "-o", str(run)]) == 0
    return run / "encoder"


@pytest.mark.parametrize(
    "scoring",
    [
        {"kind": "two_bank", "smote": 0.5, "smote_neighbours": 2},
        {"kind": "domain_z", "metric": "euclidean", "memmixup": 5},
    ],
)
def test_source_and_target_banks_of_a_system_go_with_its_bundle(tiny_challenge, pretrained, tmp_path, scoring, capsys):
    """From pre-training through LoRA and export to the agent's scores, with a band-split encoder."""
    raw = tiny_challenge / "dev_data" / "raw" / MACHINE
    branch = {"kind": "encoder", "checkpoint": str(pretrained), "tuning": "lora", "lora": {"rank": 4}, "pool": "cls"}
    values = {
        "name": "tiny",
        "data": [{"path": str(tiny_challenge)}],
        "model": {"branches": [branch]},
        "clip_s": 2.0,
        "objective": {"kind": "classify", "loss": {"kind": "arcface"}},
        "train": {"steps": 2, "batch_size": 4, "precision": "fp32", "workers": 0},
        "scoring": scoring,
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    assert train(["fit", str(tmp_path / "tiny.yaml"), "-o", str(run)]) == 0
    assert train(["evaluate", str(run), "-o", str(tmp_path / "results"), "--no-plots", "--bootstrap", "0"]) == 0
    assert export(["bundle", str(run), "--bank", MACHINE, "-o", str(bundle)]) == 0
    ours = scores(tmp_path / f"results/anomaly_score_{MACHINE}_section_00_test.csv", 0, None)
    distance, score = agent_distances(bundle, raw, tmp_path)
    np.testing.assert_allclose(
        [distance[f] for f in ours], list(ours.values()), rtol=0, atol=5e-5
    )  # torch and onnxruntime round
    assert np.std(list(ours.values())) > 1e-3 * np.mean(np.abs(list(ours.values())))
    assert export(["bundle", str(run), "--bank", "pump", "-o", str(tmp_path / "other")]) == 2
    assert f"--bank pump: no normal clips of it in the data, only of Blower, {MACHINE}" in capsys.readouterr().err
    order = sorted(ours, key=ours.__getitem__)
    assert [score[f] for f in order] == sorted(score.values())  # alarms follow the same order


def test_scoring_again_from_the_kept_embeddings(run, tiny_challenge, tmp_path):
    common = ["--machine", MACHINE, "--no-plots", "--bootstrap", "0", "--device", "cpu"]
    assert train(["evaluate", str(run / "system"), "-o", str(tmp_path / "a"), *common]) == 0
    moved = tmp_path / "elsewhere.npz"
    shutil.copy(tmp_path / "a" / "embeddings.npz", moved)
    again = ["evaluate", str(moved), "--data", str(tiny_challenge), "-o", str(tmp_path / "b"), *common]
    assert train(again) == 0
    name = f"anomaly_score_{MACHINE}_section_00_test.csv"
    assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()


def test_a_public_checkpoint_and_its_embeddings_by_embed_agree(shared_dir, tiny_challenge, tmp_path):
    weights = str(shared_dir / "checkpoints" / "mn04_as_mAP_432.pt")
    common = ["--machine", MACHINE, "--no-plots", "--bootstrap", "0", "--device", "cpu", "--data", str(tiny_challenge)]
    assert train(["evaluate", weights, "-o", str(tmp_path / "a"), *common]) == 0
    raw = tiny_challenge / "dev_data" / "raw" / MACHINE
    embed = ["embed", weights, *(str(raw / s) for s in ("train", "test", "supplemental"))]
    assert train([*embed, "-o", str(tmp_path / "e.npz"), "--device", "cpu"]) == 0
    assert train(["evaluate", str(tmp_path / "e.npz"), "-o", str(tmp_path / "b"), *common]) == 0
    name = f"anomaly_score_{MACHINE}_section_00_test.csv"
    one, other = (scores(tmp_path / x / name, 0, None) for x in "ab")
    np.testing.assert_allclose(list(one.values()), list(other.values()), atol=1e-6)
    assert list(one) == list(other)
