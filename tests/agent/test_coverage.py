"""The stated interval of false alarms holds as often as it says: whole calibrations of simulated machines.

benchmarks/coverage.py with fewer machines and days.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asd_agent.decide.fusion import Spread


@pytest.fixture(scope="module")
def coverage() -> Any:
    """The benchmark, under a name that no installed package has."""
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("benchmark_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # for its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def outside(coverage: Any, machines: int = 14) -> tuple[float, float]:
    """Share of machines whose realised rate lies above, and below the stated interval."""
    found = [f for seed in range(machines) for f in coverage.promise(seed, 2, 60, ("3/5",), heard=30)]
    above = [f["realised"] > f["high"] for f in found]
    below = [f["realised"] < f["low"] - coverage.DAYS_PER_MONTH / 30 for f in found]
    return float(np.mean(above)), float(np.mean(below))


def test_the_realised_rate_lies_inside_the_stated_interval(coverage: Any) -> None:
    above, below = outside(coverage)
    assert above + below <= 0.15  # 0.1 is stated, and at most two of fourteen


def test_without_an_allowance_for_drift_it_would_not(coverage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spread, "drift", property(lambda self: 1e-6))
    above, _ = outside(coverage, 8)
    assert above >= 0.3
