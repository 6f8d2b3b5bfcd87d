"""One score message an interval instead of one a window: the most anomalous window speaks for all."""

from __future__ import annotations

from collections import Counter

import msgspec

from asd_agent.publish.payloads import Score
from asd_agent.types import State, utc_s

ROUNDING_S = 0.002  # of the times of two messages


class ScoreInterval:
    """For one machine. With `interval_s` 0 every window is due at once."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._worst: Score | None = None
        self._began_utc_s = 0.0
        self._states: Counter[State] = Counter()

    def add(self, score: Score) -> Score | None:
        """That of the most anomalous window with the count of each state, once the interval is over."""
        end_utc_s = utc_s(score.time)
        if self._worst is None:
            self._worst, self._began_utc_s = score, end_utc_s - score.duration_s
        elif _rank(score) >= _rank(self._worst):
            self._worst = score
        self._states[score.state] += 1
        if 0 <= end_utc_s - self._began_utc_s < self._interval_s - ROUNDING_S:  # a clock that was set back ends it
            return None
        due = msgspec.structs.replace(self._worst, states=dict(self._states), window_count=self._states.total())
        self._worst = None
        self._states = Counter()
        return due


def _rank(score: Score) -> float:
    """A window that could not be assessed speaks only when none could."""
    return -1.0 if score.score is None else score.score
