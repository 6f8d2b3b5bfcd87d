"""Windows add up: a train too faint for one window stands out of many; a healthy machine stays unnamed."""

from __future__ import annotations

import numpy as np
import pytest

from asd_agent.mechanism import Analyser, Rank
from asd_agent.mechanism.accumulate import PARTS, Accumulation
from asd_agent.mechanism.diagnose import diagnose
from mechanism_machine import CONFIG, RATE_HZ, SHAFT_HZ, Faults, machine

ANALYSER = Analyser(CONFIG, RATE_HZ)
WINDOWS = 18


def wandering(faults: Faults, windows: int = WINDOWS) -> list[np.ndarray]:
    """The speed of each window differs by up to 0.3 %: lines add in orders, not in Hz."""
    return [machine(1000 + i, faults, shaft_hz=SHAFT_HZ * (1 + 0.003 * np.sin(i))) for i in range(windows)]


def accumulate(sounds: list[np.ndarray]) -> Accumulation:
    sums = Accumulation(ANALYSER)
    for x in sounds:
        sums.add(ANALYSER.analyse(x))
    return sums


@pytest.fixture(scope="module")
def faint() -> list[np.ndarray]:
    return wandering(Faults(outer=1.0))


def test_what_one_window_does_not_show_many_do(faint):
    single = [any(f.component for f in diagnose(x, RATE_HZ, CONFIG)) for x in faint]
    assert np.mean(single) < 0.2
    finding = accumulate(faint).finding()
    assert finding is not None
    assert finding.component == "bearing DE outer race"
    assert f"all {WINDOWS} windows together" in finding.words
    assert finding.p_value is not None
    assert finding.p_value < 0.01


def test_a_healthy_machine_stays_unnamed_over_many_windows():
    finding = accumulate(wandering(Faults())).finding()
    assert finding is None or not finding.component


def test_growth_is_shown():
    sounds = wandering(Faults(outer=1.5), 8) + wandering(Faults(outer=4.0), 8)
    finding = accumulate(sounds).finding()
    assert finding is not None
    assert finding.rank == Rank.COMPONENT
    assert finding.change_db is not None
    assert finding.change_db > 4


def test_memory_is_bounded_and_the_growth_is_in_the_order_of_time(faint):
    sums = accumulate(faint)
    found = sums.diagnose()
    assert found.named is not None
    assert len(sums.growth_db(found.named)) <= PARTS
    assert sums.windows == WINDOWS


def test_each_look_at_a_growing_sum_costs_more(faint):
    sums = Accumulation(ANALYSER)
    due = []
    for i, x in enumerate(faint[:16], 1):
        sums.add(ANALYSER.analyse(x))
        if sums.due:
            due.append(i)
            sums.look()
    assert due == [1, 2, 4, 8, 16]
