"""`asd-train evaluate`: what it reads, what it writes, and that its numbers are the challenge's."""

from __future__ import annotations

import csv
import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gamma, hmean
from sklearn.metrics import roc_auc_score

from asd_agent.errors import UsageError
from asd_agent.files import save_arrays
from asd_train import cli
from asd_train.data import Clip, DataSource, load_clips
from asd_train.evaluate import evaluate, rules_of
from asd_train.results import markdown, summarise, threshold
from asd_train.scoring import Scoring
from asd_train.vectors import match
from asd_train.weighting import Weight

DIM = 6


def vector(clip: Clip) -> np.ndarray:
    """An embedding that depends on the clip's name; anomalies lie somewhat off."""
    rng = np.random.default_rng(zlib.crc32(f"{clip.machine} {clip.file}".encode()))
    return rng.normal(0, 1, DIM) + 1.2 * ("_anomaly_" in clip.file)


@pytest.fixture(scope="module")
def clips(tiny_challenge):
    return load_clips([DataSource(path=str(tiny_challenge))])


@pytest.fixture(scope="module")
def npz(clips, tmp_path_factory):
    path = tmp_path_factory.mktemp("embeddings") / "e.npz"
    files = np.array([clip.path for clip in clips])
    save_arrays(path, {"file": files, "embedding": np.array([vector(c) for c in clips], np.float32)})
    return path


def run(*arguments, code=0):
    assert cli.main(["evaluate", *map(str, arguments)]) == code


def rows(path: Path):
    return list(csv.reader(path.open(newline="")))


@pytest.fixture(scope="module")
def results(tiny_challenge, npz, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    run(npz, "--data", tiny_challenge, "--scoring", "euclidean", "--bootstrap", 20, "-o", out)
    return out


def test_score_files_are_the_challenges(results, clips, npz):
    test = sorted((c for c in clips if c.machine == "Blower" and c.split == "test"), key=lambda c: c.file)
    found = rows(results / "anomaly_score_Blower_section_00_test.csv")
    assert [row[0] for row in found] == [c.file for c in test]
    normal = np.array([vector(c) for c in clips if c.machine == "Blower" and c.split == "train"])
    expected = [np.sqrt(((normal - vector(c)) ** 2).sum(1)).min() for c in test]
    np.testing.assert_allclose([float(row[1]) for row in found], expected, atol=1e-5)
    assert b"\r" not in (results / "anomaly_score_Blower_section_00_test.csv").read_bytes()


def test_decisions_follow_the_gamma_threshold(results):
    held_out = np.array([float(row[1]) for row in rows(results / "normal_score_Blower_section_00_train.csv")])
    shape, place, scale = gamma.fit(held_out)
    limit = gamma.ppf(0.9, shape, loc=place, scale=scale)
    scores = rows(results / "anomaly_score_Blower_section_00_test.csv")
    decisions = rows(results / "decision_result_Blower_section_00_test.csv")
    assert decisions == [[file, str(int(float(score) > limit))] for file, score in scores]


def test_official_score_recomputed_from_the_files(results):
    values = []
    for machine in ("Blower", "GearPump"):
        found = rows(results / f"anomaly_score_{machine}_section_00_test.csv")
        score = np.array([float(s) for _, s in found])
        anomaly = np.array(["_anomaly_" in f for f, _ in found])
        for domain in ("_source_", "_target_"):
            use = np.array([domain in f for f, _ in found]) | anomaly
            values.append(roc_auc_score(anomaly[use], score[use]))
        values.append(roc_auc_score(anomaly, score, max_fpr=0.1))
    summary = json.loads((results / "results.json").read_text())
    assert summary["score"] == pytest.approx(hmean(values))
    low, high = summary["interval"]
    assert low <= summary["score"] <= high
    table = (results / "results.md").read_text().splitlines()
    assert table[-1].startswith("| **all** |")
    assert f"**{100 * summary['score']:.2f}**" in table[-1]


def test_pictures_are_drawn(results):
    assert (results / "2025_Blower.png").read_bytes().startswith(b"\x89PNG")


def test_several_scorings_write_to_a_folder_each(tiny_challenge, npz, tmp_path, capsys):
    run(
        *(npz, "--data", tiny_challenge, "--machine", "GearPump", "--no-plots", "--bootstrap", 0),
        *("--scoring", "cosine,k=2", "--scoring", "two_bank,smote=0.5,metric=euclidean", "-o", tmp_path),
    )
    written = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("anomaly_score_*"))
    assert written == [
        "cosine,k=2/anomaly_score_GearPump_section_00_test.csv",
        "two_bank,smote=0.5,metric=euclidean/anomaly_score_GearPump_section_00_test.csv",
    ]
    assert "| GearPump |" in capsys.readouterr().out


@pytest.mark.parametrize(("transductive", "told"), [("true", True), ("false", False)])
def test_transductive_scores_are_told(tiny_challenge, npz, tmp_path, transductive, told):
    scoring = f"domain_z,metric=euclidean,memmixup=5,transductive={transductive}"
    run(npz, "--data", tiny_challenge, "--no-plots", "--bootstrap", 0, "--scoring", scoring, "-o", tmp_path)
    assert ("an agent has no test set" in (tmp_path / "results.md").read_text()) is told


def test_an_evaluation_set_without_truth_gets_scores_but_no_figures(clips, tmp_path):
    blind = [
        Clip(f"/x/m/test/section_00_{i:04d}.wav", "m", 2025, domain="", label="", split="test")
        if c.split == "test"
        else c
        for i, c in enumerate(c for c in clips if c.machine == "Blower")
    ]
    blind = [Clip(c.path, "m", 2025, c.section, c.domain, c.split, c.label, c.attributes, c.kind) for c in blind]
    (section,) = evaluate(blind, np.array([vector(c) for c in blind]), Scoring())
    assert len(section.scores) == 8
    assert not section.labelled


def test_a_machine_without_labels_is_named_beside_the_others(clips):
    sections = evaluate(clips, np.array([vector(c) for c in clips]), Scoring())
    blind = [replace(c, label="") if c.machine == "Blower" and c.split == "test" else c for c in clips]
    half = evaluate(blind, np.array([vector(c) for c in clips]), Scoring())
    summary = summarise(half, "2022", 0)
    assert summary["unlabelled"] == ["Blower"]
    assert [m["machine"] for m in summary["machines"]] == ["GearPump"]
    assert "No labels of Blower: scored, but not among the figures." in markdown(summary)
    assert summarise(sections, "2022", 0)["unlabelled"] == []


def test_energy_weights_need_and_use_the_recordings(clips):
    own = [c for c in clips if c.machine == "Blower"]
    x = np.array([vector(c) for c in own])
    weight = Weight(of=("energy",), supplemental=True, strength=3.0)
    with pytest.raises(UsageError, match="needs the recordings"):
        evaluate(own, x, Scoring(weight=weight))

    def log_mel(path):
        rng = np.random.default_rng(zlib.crc32(path.rsplit("/", 1)[-1].encode()))
        return rng.normal(40.0 if "_anomaly_" in path else 0.0, 1, (5, 4))

    (plain,), (weighted,) = evaluate(own, x, Scoring()), evaluate(own, x, Scoring(weight=weight), log_mel)
    anomalous = np.array([c.label == "anomaly" for c in plain.clips])
    ratio = weighted.scores / plain.scores
    assert (ratio[anomalous] > 3.5).all()
    assert (ratio >= 1).all()
    assert (ratio < 4).all()
    assert np.median(ratio[~anomalous]) < 3.2


def test_embeddings_made_elsewhere_are_matched_by_the_end_of_the_path(clips):
    files = [f"/elsewhere/{c.machine}/{c.path.split('/')[-2]}/{c.file}" for c in clips]
    x = np.arange(len(clips), dtype=np.float32)[:, None]
    order = np.random.default_rng(0).permutation(len(clips))
    np.testing.assert_array_equal(match([files[i] for i in order], x[order], clips)[:, 0], np.arange(len(clips)))


def test_ambiguous_and_missing_embeddings_are_named(clips):
    twins = [Clip(f"/data/{machine}/train/section_00_0000.wav", machine) for machine in ("fan", "saw")]
    with pytest.raises(UsageError, match="several files of that name"):
        match([c.file for c in twins], np.zeros((2, 1), np.float32), twins)
    x = np.zeros((len(clips), 1), np.float32)
    with pytest.raises(UsageError, match="no embedding of this clip"):
        match([c.path for c in clips[1:]], x[1:], clips)
    x[3] = np.nan
    with pytest.raises(UsageError, match="holds NaN"):
        match([c.path for c in clips], x, clips)


def test_rules_follow_the_year():
    assert rules_of([Clip("a", "m", 2020)]) == "2020"
    assert rules_of([Clip("a", "m", 2025), Clip("a", "m", 0)]) == "2022"
    with pytest.raises(UsageError, match="different rules"):
        rules_of([Clip("a", "m", 2020), Clip("a", "m", 2024)])


def test_threshold_of_odd_scores():
    assert np.isnan(threshold(np.empty(0)))
    assert threshold(np.full(5, 2.0)) == 2.0
    scores = np.random.default_rng(0).gamma(3, 2, 4000)
    assert threshold(scores) == pytest.approx(gamma.ppf(0.9, 3, scale=2), rel=0.05)
    assert np.isfinite(threshold(-scores))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.npz", "--data", "DATA"], "no such file or folder"),
        (["NPZ"], "give the recordings with --data"),
        (["NPZ", "--data", "DATA", "--machine", "Tractor"], "no machine 'Tractor' in the data"),
        (["NPZ", "--data", "DATA", "--scoring", "cosin"], "--scoring cosin: Invalid enum value"),
        (["NPZ", "--data", "DATA", "--scoring", "cosine,k"], "'k' is not of the form key=value"),
        (["NPZ", "--data", "DATA", "--scoring", "cosine,smoot=1"], "unknown field `smoot`"),
        (["NPZ", "--data", "DATA", "--array", "tokens"], "holds no array 'tokens', only embedding"),
        (["NPZ", "--data", "DATA", "--batch-size", "0"], "--batch-size must be"),
        (["NPZ", "--data", "absent"], "absent: no such folder"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, tiny_challenge, npz, tmp_path, capsys):
    names = {"NPZ": str(npz), "DATA": str(tiny_challenge)}
    run(*(names.get(a, a) for a in arguments), "-o", tmp_path, code=2)
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_no_npz_and_arrays_to_join(tiny_challenge, clips, tmp_path, capsys):
    (tmp_path / "broken.npz").write_text("no zip")
    run(tmp_path / "broken.npz", "--data", tiny_challenge, "-o", tmp_path / "out", code=2)
    assert "cannot be read as embeddings" in capsys.readouterr().err
    files = np.array([c.path for c in clips])
    x = np.array([vector(c) for c in clips], np.float32)
    save_arrays(tmp_path / "two.npz", {"file": files, "low": x[:, :2], "high": x[:, 2:]})
    run(tmp_path / "two.npz", "--data", tiny_challenge, "-o", tmp_path / "out", code=2)
    assert "holds low, high; choose with --array" in capsys.readouterr().err
    run(
        *(tmp_path / "two.npz", "--data", tiny_challenge, "--array", "low", "--array", "high", "--no-plots"),
        *("--scoring", "euclidean", "--bootstrap", 0, "-o", tmp_path / "out"),
    )
    joined = rows(tmp_path / "out/anomaly_score_Blower_section_00_test.csv")
    assert len(joined) == 8
