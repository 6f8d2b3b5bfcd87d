from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from rich.console import Console

from asd_agent.config.kinematics import Mechanism
from asd_agent.errors import UsageError
from asd_agent.mechanism import Analyser, MechanismBaseline, report
from asd_agent.mechanism.plot import plot
from asd_agent.mechanism.trend import fit, trend_plot, trend_table
from mechanism_machine import CONFIG, RATE_HZ, Faults, machine

DAY_S = 86_400.0


@pytest.fixture(scope="module")
def baseline() -> MechanismBaseline:
    analyser = Analyser(CONFIG, RATE_HZ)
    return MechanismBaseline.fit([analyser.indicators(machine(i)).values for i in range(20)], np.arange(20) // 4)


@pytest.fixture(scope="module")
def faulty() -> np.ndarray:
    return machine(100, Faults(outer=2.5), seconds=25)


def text(table) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_a_recording_is_cut_and_its_finding_counted(baseline, faulty):
    result = report.examine(faulty, RATE_HZ, CONFIG, baseline, window_s=8, origin="a.flac")
    assert [w.start_s for w in result.windows] == [0.0, 8.0, 16.0]
    assert len(faulty[result.worst_slice]) == 8 * RATE_HZ
    first = result.findings[0]
    assert first.finding.component == "bearing DE outer race"
    assert (first.windows, first.of) == (3, 3)
    assert "BPFO of DE" in report.finding_lines(result)[0]
    assert "in 3 of 3 windows" in report.finding_lines(result)[0]


def test_the_tables_show_speed_and_what_stands_out(baseline, faulty):
    result = report.examine(faulty, RATE_HZ, CONFIG, baseline, window_s=8, origin="a.flac")
    windows, indicators = text(report.window_table(result)), text(report.indicator_table(result))
    assert "24.87" in windows
    assert "configured" in windows
    assert "DE.bpfo.full" in indicators
    assert "level (not judged)" in indicators
    assert len(text(report.indicator_table(result, everything=True)).splitlines()) > len(indicators.splitlines())


def test_the_data_is_strict_json(baseline, faulty):
    for known in (baseline, None):
        data = report.as_data(report.examine(faulty, RATE_HZ, CONFIG, known, window_s=8))
        again = json.loads(json.dumps(data, allow_nan=False))
        assert again["findings"][0]["rank"] == "component"
        assert again["windows"][0]["indicators"]["shape.kurtosis"]["value"] > 0


def test_normal_gated_and_uncalibrated_recordings_say_so(baseline):
    calm = report.examine(machine(300), RATE_HZ, CONFIG, baseline)
    assert report.finding_lines(calm)[0].startswith("nothing unusual (lowest p 0.")
    silent = report.examine(np.zeros(RATE_HZ, np.float32), RATE_HZ, CONFIG, baseline)
    assert report.finding_lines(silent) == ["not assessable: flat"]
    assert "flat" in text(report.window_table(silent))
    unknown = report.examine(machine(301), RATE_HZ, Mechanism())
    assert "without a baseline" in report.finding_lines(unknown)[0]
    assert "kurtosis" in text(report.indicator_table(unknown))
    assert "level.rms_db" not in text(report.indicator_table(silent))


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


def test_growing_values_lead_the_table_and_the_picture_is_drawn(tmp_path):
    t, x = days(300)
    table = text(trend_table([fit("calm", t, x), fit("worse", t, x + np.arange(300) * 0.01)], "compressor-1"))
    assert table.index("worse") < table.index("calm")
    trend_plot(tmp_path / "t.png", [("calm", t, x), ("worse", t, x + np.arange(300) * 0.01)], "compressor-1")
    assert (tmp_path / "t.png").stat().st_size > 10_000
