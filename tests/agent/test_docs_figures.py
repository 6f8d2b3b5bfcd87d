"""Figures in the documentation are those of benchmarks/results."""

from __future__ import annotations

import json
import re
from pathlib import Path

from asd_agent.cli import capacity

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results"


def test_the_table_of_capacity_is_what_was_measured():
    """Results -> the table that `asd-agent bench` compares with -> the table of the docs."""
    hosts = json.loads((RESULTS / "capacity.json").read_text())
    backbones = json.loads((RESULTS / "backbones.json").read_text())
    measured = {
        (name, cost["bundle"], cost["variant"]): cost["window_ms"]
        for name, one in hosts.items()
        for cost in one["costs"]
    }
    measured |= {
        (backbones["cpu"], f"{shown} base", variant): backbones[key]["agent"][variant]["window_ms"]
        for key, shown in (("eat", "EAT"), ("beats", "BEATs"))
        for variant in ("fp32", "int8")
    }
    listed = capacity.listed()
    assert {(row.computer, row.bundle, row.variant): row.window_ms for row in listed} == measured
    assert capacity.markdown(listed) in (REPOSITORY / "docs" / "capacity.md").read_text()
    assert all(row.machines_per_core == int(0.7 * 5000 / row.window_ms) for row in listed)


def test_a_computer_is_compared_with_the_listed_ones():
    row = capacity.Listed(computer="Box", cores=4, bundle="default", variant="fp32", window_ms=20.0)
    assert capacity.comparison("default", "fp32", 10.0, 5.0, [row]) == [
        "Box: 20.0 ms, 175 machines a core; a window takes 1.0 x as long here"
    ]
    assert capacity.comparison("mine", "fp32", 10.0, 5.0, [row]) == []


def test_the_table_of_back_ends_is_what_was_measured():
    systems = json.loads((RESULTS / "train_backends.json").read_text())["systems"]
    measured = {(one["official_score"], one.get("over_best_frozen")) for one in systems}
    page = (REPOSITORY / "docs" / "training.md").read_text()
    rows = re.findall(r"\| \**([\d.]+)\** \| (-?[\d.]+) \((-?[\d.]+) to (-?[\d.]+)\) \|$", page, re.MULTILINE)
    assert len(rows) == 8
    for score, difference, low, high in rows:
        assert (float(score), float(difference)) in measured
        assert any(one.get("over_best_frozen_95") == [float(low), float(high)] for one in systems)
