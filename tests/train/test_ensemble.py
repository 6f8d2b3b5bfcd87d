"""Ensembles: standard scores, weights, grids and replaced machines."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from asd_agent.errors import UsageError
from asd_train import cli
from asd_train.ensemble import Ensemble, Member, combine, grid_search, read_tables, simplex
from asd_train.metrics import official_score, section_figures

FILES = [
    f"section_00_{d}_test_{la}_{n:04d}.wav"
    for d in ("source", "target")
    for la in ("normal", "anomaly")
    for n in range(6)
]
ANOMALY = np.array(["anomaly" in f for f in FILES])


def write(folder, machine, scores, normal=None, files=FILES):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{f},{s!r}\n" for f, s in zip(files, map(float, scores), strict=True))
    (folder / f"anomaly_score_{machine}_section_00_test.csv").write_text(text)
    if normal is not None:
        text = "".join(f"n{i}.wav,{float(s)!r}\n" for i, s in enumerate(normal))
        (folder / f"normal_score_{machine}_section_00_train.csv").write_text(text)


@pytest.fixture
def systems(tmp_path):
    """good separates, poor is noise on a scale a hundred times larger."""
    rng = np.random.default_rng(0)
    for machine in ("fan", "saw"):
        write(tmp_path / "good", machine, rng.normal(0, 1, 24) + 1.5 * ANOMALY, rng.normal(0, 1, 30))
        write(tmp_path / "poor", machine, 500 + 100 * rng.normal(0, 1, 24), 500 + 100 * rng.normal(0, 1, 30))
    return tmp_path


def config(root, *names, weights=(1.0, 1.0), **options):
    members = [Member(scores=str(root / n), weight=w) for n, w in zip(names, weights, strict=True)]
    return Ensemble(members=members, **options)


def read(folder, machine):
    with (folder / f"anomaly_score_{machine}_section_00_test.csv").open(newline="") as file:
        return np.array([float(score) for _, score in csv.reader(file)])


@pytest.mark.parametrize("normalise", ["test", "train"])
def test_the_sum_by_hand(systems, normalise):
    tables = read_tables(config(systems, "good", "poor", normalise=normalise))
    fan = combine(tables, (3, 1))[0]
    expected = 0
    for name, weight in (("good", 0.75), ("poor", 0.25)):
        scores = usual = read(systems / name, "fan")
        if normalise == "train":
            path = systems / name / "normal_score_fan_section_00_train.csv"
            usual = np.array([float(line.split(",")[1]) for line in path.read_text().splitlines()])
        expected = expected + weight * (scores - usual.mean()) / usual.std()
    np.testing.assert_allclose(fan.scores, expected)
    assert [c.file for c in fan.clips] == FILES
    assert len(fan.held_out) == 30
    assert fan.labelled


def test_grid_search_finds_the_best_point(systems):
    tables = read_tables(config(systems, "good", "poor"))
    weights, score = grid_search(tables, 0.25, "2022")
    by_hand = {w: official_score([section_figures(s.scored()) for s in combine(tables, w)]) for w in simplex(2, 4)}
    assert score == pytest.approx(max(by_hand.values()))
    assert by_hand[weights] == score
    assert weights[0] >= 0.5


def test_simplex_is_complete():
    points = list(simplex(3, 4))
    assert len(points) == len(set(points)) == 15
    assert all(sum(p) == pytest.approx(1) and min(p) >= 0 for p in points)


def test_a_replaced_machine_takes_the_other_score_alone(systems):
    write(systems / "mechanism", "saw", np.arange(24.0))
    tables = read_tables(config(systems, "good", "poor", replace={"saw": str(systems / "mechanism")}))
    fan, saw = combine(tables, (1, 1))
    assert (np.diff(saw.scores) > 0).all()
    assert saw.held_out.size == 0
    assert fan.machine == "fan"


def test_a_replaced_machine_that_was_not_scored_is_named(systems, tmp_path, capsys):
    """Report A replaces machines of the evaluation set: on the development set there is nothing to replace."""
    replace = ["--replace", f"tractor={systems / 'mechanism'}"]
    out = ["-o", str(tmp_path / "out"), "--bootstrap", "0"]
    assert cli.main(["ensemble", str(systems / "good"), str(systems / "poor"), *replace, *out]) == 0
    assert "replace: no scores of tractor here" in capsys.readouterr().err


def test_systems_must_have_scored_the_same(systems):
    write(systems / "other", "fan", np.arange(23.0), files=FILES[1:])
    with pytest.raises(UsageError, match="holds other clips than"):
        read_tables(config(systems, "good", "other"))
    write(systems / "other", "fan", np.arange(24.0))
    with pytest.raises(UsageError, match=r"anomaly_score_saw_section_00_test\.csv: missing"):
        read_tables(config(systems, "good", "other"))
    with pytest.raises(UsageError, match="normalise: train needs held-out scores"):
        read_tables(config(systems, "other", "good", normalise="train"))
    with pytest.raises(UsageError, match="no anomaly_score_"):
        read_tables(config(systems, "absent", "good"))


def test_held_out_lists_that_differ_do_not_matter_to_test_clips(systems):
    """`normalise: test` needs none; what is scored is the same with them, with other ones and without."""
    both = combine(read_tables(config(systems, "good", "poor")), (1, 1))[0]
    (systems / "poor" / "normal_score_fan_section_00_train.csv").write_text("other.wav,500.0\n")
    differing = combine(read_tables(config(systems, "good", "poor")), (1, 1))[0]
    (systems / "poor" / "normal_score_fan_section_00_train.csv").unlink()
    without = combine(read_tables(config(systems, "good", "poor")), (1, 1))[0]
    assert np.array_equal(both.scores, differing.scores)
    assert np.array_equal(both.scores, without.scores)
    assert (len(both.held_out), len(without.held_out)) == (30, 0)


def test_command_with_grid_and_yaml(systems, capsys):
    out = systems / "out"
    base = ["--bootstrap", "10"]
    assert (
        cli.main(["ensemble", str(systems / "good"), str(systems / "poor"), "-o", str(out), "--grid", "0.2", *base])
        == 0
    )
    assert "Selected on test labels: weights in steps of" in capsys.readouterr().out
    weights = json.loads((out / "weights.json").read_text())
    assert weights[str(systems / "good")] > 0.5
    assert (out / "decision_result_fan_section_00_test.csv").is_file()
    yaml = systems / "e.yaml"
    yaml.write_text(f"members: [{{scores: {systems}/good, weight: 0.7}}, {{scores: {systems}/poor, weight: 0.3}}]\n")
    assert cli.main(["ensemble", str(yaml), "-o", str(systems / "y"), *base]) == 0
    equal = ["ensemble", str(systems / "good"), str(systems / "poor"), "-o", str(systems / "w"), *base]
    assert cli.main([*equal, "--weights", "7,3"]) == 0
    np.testing.assert_allclose(read(systems / "y", "fan"), read(systems / "w", "fan"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "1"], "2 numbers are needed"),
        (["--weights", "a,b"], "numbers with commas"),
        (["--weights", "0,0"], "not all 0"),
        (["--grid", "2"], "a step above 0"),
        (["--replace", "fan"], "MACHINE=FOLDER"),
    ],
)
def test_mistakes_end_in_one_line(systems, capsys, arguments, message):
    folders = [str(systems / "good"), str(systems / "poor")]
    assert cli.main(["ensemble", *folders, "-o", str(systems / "o"), *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_too_fine_a_grid_is_refused(systems):
    tables = read_tables(config(systems, *["good"] * 8, weights=[1] * 8))
    with pytest.raises(UsageError, match="too many"):
        grid_search(tables, 0.02, "2022")
