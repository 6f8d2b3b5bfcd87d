"""One score message an interval instead of one a window: the most anomalous window speaks for all."""

from __future__ import annotations

from collections import Counter

from asd_agent.types import State, WindowResult


class ScoreInterval:
    """For one machine. With `interval_s` 0 every window is due at once."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._worst: WindowResult | None = None
        self._began_utc_s = 0.0
        self._states: Counter[State] = Counter()

    def add(self, result: WindowResult) -> tuple[WindowResult, dict[State, int]] | None:
        """The most anomalous window and the count of each state, once the interval is over."""
        if self._worst is None:
            self._worst, self._began_utc_s = result, result.utc_s
        elif _rank(result) >= _rank(self._worst):
            self._worst = result
        self._states[result.state] += 1
        passed = result.utc_s + result.duration_s - self._began_utc_s
        if 0 <= passed < self._interval_s:  # a clock that was set back ends the interval
            return None
        due = self._worst, dict(self._states)
        self._worst = None
        self._states = Counter()
        return due


def _rank(result: WindowResult) -> float:
    """A window that could not be assessed speaks only when none could."""
    return -1.0 if result.score is None else result.score
