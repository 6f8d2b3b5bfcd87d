from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from asd_agent.config.kinematics import Mechanism
from asd_agent.errors import UsageError
from asd_agent.mechanism import Analyser, MechanismBaseline, report
from asd_agent.mechanism.plot import plot
from asd_agent.mechanism.trend import fit, trend_plot
from asd_agent.mechanism.units import real, shown
from mechanism_machine import CONFIG, RATE_HZ, Faults, machine

DAY_S = 86_400.0


@pytest.fixture(scope="module")
def baseline() -> MechanismBaseline:
    analyser = Analyser(CONFIG, RATE_HZ)
    return MechanismBaseline.fit([analyser.indicators(machine(i)).values for i in range(20)], np.arange(20) // 4)


@pytest.fixture(scope="module")
def faulty() -> np.ndarray:
    return machine(100, Faults(outer=2.5), seconds=25)


def test_a_recording_is_cut_and_its_finding_counted(baseline, faulty):
    result = report.examine(faulty, RATE_HZ, CONFIG, baseline, window_s=8, origin="a.flac")
    assert [w.start_s for w in result.windows] == [0.0, 8.0, 16.0]
    assert len(faulty[result.worst_slice]) == 8 * RATE_HZ
    first = result.findings[0]
    assert first.finding.component == "bearing DE outer race"
    assert (first.windows, first.of) == (3, 3)
    assert "BPFO of DE" in report.finding_lines(result)[0]
    assert "in 3 of 3 windows" in report.finding_lines(result)[0]


def test_what_stands_out_comes_first_and_everything_is_more(baseline, faulty):
    result = report.examine(faulty, RATE_HZ, CONFIG, baseline, window_s=8, origin="a.flac")
    verdict = result.windows[result.worst].verdict
    few, every = report.standing_out(verdict), report.standing_out(verdict, everything=True)
    assert few[0][0] == "envelope"
    assert "envelope.DE.bpfo.full" in [d.name for d in few[0][1]]
    assert sum(len(members) for _, members in every) > sum(len(members) for _, members in few)


def test_indicators_are_shown_in_the_units_of_people():
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, 4 * RATE_HZ).astype(np.float32)
    values = Analyser(Mechanism(), RATE_HZ).indicators(samples).values
    assert real("shape.kurtosis", values["shape.kurtosis"])[0] == pytest.approx(3.0, rel=0.03)
    assert real("shape.shape_factor", values["shape.shape_factor"])[0] == pytest.approx(np.sqrt(np.pi / 2), rel=0.01)
    assert real("shape.skewness", values["shape.skewness"])[0] == pytest.approx(0.0, abs=0.05)
    assert real("level.rms_db", values["level.rms_db"]) == (pytest.approx(-20.0, abs=0.2), "dBFS")
    number, unit = real("bands.centroid", values["bands.centroid"])
    assert unit == "Hz"
    assert 1000 < number < RATE_HZ / 2
    assert 0 <= real("bands.tonal", values["bands.tonal"])[0] < 1
    assert shown("shape.crest", np.log(4.1)) == "4.1"
    assert shown("bands.tonal", np.log((0.5 + 0.01) / (1.01 - 0.5))) == "50.0 %"


def test_the_data_is_strict_json(baseline, faulty):
    for known in (baseline, None):
        data = report.as_data(report.examine(faulty, RATE_HZ, CONFIG, known, window_s=8))
        again = json.loads(json.dumps(data, allow_nan=False))
        assert again["findings"][0]["rank"] == "component"
        assert again["by_window"][0]["indicators"]["shape.kurtosis"]["value"] > 0


def test_normal_gated_and_uncalibrated_recordings_say_so(baseline):
    calm = report.examine(machine(300), RATE_HZ, CONFIG, baseline)
    assert report.finding_lines(calm)[0].startswith("Nothing unusual (lowest p 0.")
    silent = report.examine(np.zeros(RATE_HZ, np.float32), RATE_HZ, CONFIG, baseline)
    assert report.finding_lines(silent) == ["Not assessable: flat"]
    unknown = report.examine(machine(301), RATE_HZ, Mechanism())
    assert "without a baseline" in report.finding_lines(unknown)[0]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture_is_drawn(baseline, faulty, tmp_path, suffix):
    path = tmp_path / f"picture.{suffix}"
    result = report.examine(faulty[: 8 * RATE_HZ], RATE_HZ, CONFIG, baseline)
    findings = [r.finding for r in result.findings]
    plot(path, faulty[: 8 * RATE_HZ], RATE_HZ, CONFIG, findings, baseline, title="a.flac")
    assert path.stat().st_size > 20_000
    if suffix == "svg":
        drawn = path.read_text()
        assert "BPFO of DE" in drawn
        assert "normal band level" in drawn


def test_the_picture_needs_neither_baseline_nor_kinematics(tmp_path):
    x = np.random.default_rng(0).standard_normal(2 * RATE_HZ).astype(np.float32)
    plot(tmp_path / "p.png", x, RATE_HZ, Mechanism(), [])
    assert (tmp_path / "p.png").stat().st_size > 20_000


def test_a_picture_that_cannot_be_made_is_one_clear_error(tmp_path, monkeypatch):
    x = np.random.default_rng(0).standard_normal(2 * RATE_HZ).astype(np.float32)
    with pytest.raises(UsageError, match="cannot be written"):
        plot(tmp_path / "p.tiffany", x, RATE_HZ, Mechanism(), [])
    with pytest.raises(UsageError, match="nothing to draw \\(flat\\)"):
        plot(tmp_path / "p.png", 0 * x, RATE_HZ, Mechanism(), [])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="asd-agent\\[plot\\]"):
        plot(tmp_path / "p.png", x, RATE_HZ, Mechanism(), [])


def days(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    t = np.arange(n) * 1800.0 + 1.7e9
    return t, 1 + 0.3 * np.random.default_rng(seed).standard_normal(n)


@pytest.mark.parametrize("seed", range(10))
def test_steady_values_have_no_trend(seed):
    trend = fit("score", *days(500, seed))
    assert trend.words == "steady"
    assert not trend.growing


def test_correlated_values_are_not_taken_for_a_trend():
    """Temperature, load: a slow wander is not growth."""
    wrong = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        steps = np.zeros(300)
        for i in range(1, 300):
            steps[i] = 0.7 * steps[i - 1] + rng.standard_normal()
        wrong += fit("score", days(300)[0], steps).p_value < 0.01
    assert wrong <= 3


def test_growth_is_found_with_its_rate_and_its_beginning():
    t, x = days(600)
    began = t[400]
    x = x + np.maximum(t - began, 0) / DAY_S * 0.6
    trend = fit("score", t, x)
    assert trend.growing
    assert trend.slope_per_day == pytest.approx(0.6, rel=0.15)
    assert trend.since_utc_s == pytest.approx(began, abs=1.0 * DAY_S)
    assert trend.words.startswith("growing since 20")


def test_a_fall_and_too_few_values_are_said():
    t, x = days(300)
    assert "falling" in fit("score", t, x - np.arange(300) * 0.01).words
    assert fit("score", t[:5], x[:5]).words == "too few windows"
    assert fit("score", [], []).words == "too few windows"
    assert fit("score", t, np.where(np.arange(300) % 2, np.nan, x)).points == 150


def test_over_less_than_a_day_no_change_per_day_is_claimed():
    t = np.arange(400) * 60.0 + 1.7e9
    trend = fit("score", t, 1 + np.arange(400) * 0.01)
    assert trend.words.endswith("within 6.6 h")
    assert "per day" not in trend.words


def test_the_picture_of_a_trend_has_limit_and_alarms_on_the_axis_of_the_score(tmp_path):
    t, x = days(300)
    series = [("score", t, x + np.arange(300) * 0.01), ("level", t, x)]
    trend_plot(tmp_path / "t.svg", series, "compressor-1", (t, np.full(300, 2.4)), [(t[200], t[250])])
    drawn = (tmp_path / "t.svg").read_text()
    assert "<!-- limit -->" in drawn
    assert "<!-- alarm -->" in drawn
