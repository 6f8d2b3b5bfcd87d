"""Figures in the documentation are those of benchmarks/results."""

from __future__ import annotations

import json
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results"


def test_the_table_of_capacity_is_what_was_measured():
    agent = json.loads((RESULTS / "agent.json").read_text())
    backbones = json.loads((RESULTS / "backbones.json").read_text())
    spectral = max(window["step_ms"] for window in agent["window"])
    measured = {("spectral", "fp32"): spectral} | {
        (f"{shown} base", variant): backbones[key]["agent"][variant]["window_ms"]
        for key, shown in (("eat", "EAT"), ("beats", "BEATs"))
        for variant in ("fp32", "int8")
    }
    page = (REPOSITORY / "docs" / "capacity.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (fp32|int8) \| ([\d.]+) \| (\d+) \|$", page, re.MULTILINE)
    assert {(name, variant) for name, variant, _, _ in rows} == set(measured)
    for name, variant, ms, machines in rows:
        assert float(ms) == round(measured[name, variant], 1)
        assert int(machines) == int(0.7 * 5000 / measured[name, variant])


def test_the_table_of_back_ends_is_what_was_measured():
    systems = json.loads((RESULTS / "train_backends.json").read_text())["systems"]
    measured = {(one["official_score"], one.get("over_best_frozen")) for one in systems}
    page = (REPOSITORY / "docs" / "training.md").read_text()
    rows = re.findall(r"\| \**([\d.]+)\** \| (-?[\d.]+) \((-?[\d.]+) to (-?[\d.]+)\) \|$", page, re.MULTILINE)
    assert len(rows) == 8
    for score, difference, low, high in rows:
        assert (float(score), float(difference)) in measured
        assert any(one.get("over_best_frozen_95") == [float(low), float(high)] for one in systems)
