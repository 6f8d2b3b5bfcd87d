"""A source that delivers less sound than time goes by is not good."""

from __future__ import annotations

import numpy as np
import pytest

from asd_agent.capture import SourceStatus
from asd_agent.service.capture import DeliveryRate
from asd_agent.service.health import ChainHealth
from asd_agent.types import Block, ChainStatus

RATE = 8000


def delivered(pace: float, seconds: float, gap_at_s: float = -1.0) -> float | None:
    """Blocks of 0.1 s, `pace` times as fast as the clock."""
    rate = DeliveryRate()
    at_s = 100.0
    samples = np.zeros((RATE // 10, 1), np.float32)
    while at_s < 100.0 + seconds:
        at_s += 0.1 / pace
        rate.add(Block(samples, RATE, 0, 0.0, at_s, gap=abs(at_s - 100.0 - gap_at_s) < 0.05))
    return rate.sound_per_s


@pytest.mark.parametrize("pace", [0.25, 0.5, 1.0, 4.0])
def test_sound_is_measured_against_the_clock(pace: float) -> None:
    assert delivered(pace, 40.0) == pytest.approx(pace, rel=0.02)


def test_little_sound_says_nothing() -> None:
    assert delivered(0.5, 10.0) is None
    assert delivered(1.0, 30.0, gap_at_s=15.0) is None  # the hole is told by itself


@pytest.mark.parametrize(("pace", "good"), [(0.25, False), (0.5, False), (0.85, False), (0.98, True), (None, True)])
def test_a_source_that_is_too_slow_is_told(pace: float | None, good: bool) -> None:
    findings = ChainHealth().findings(SourceStatus(True, "delivering", sound_per_s=pace), None)
    assert (findings == []) is good
    if not good:
        assert findings[0].status is ChainStatus.OUT_OF_SPECIFICATION
        assert f"{pace:.2f} s of sound a second" in findings[0].words
