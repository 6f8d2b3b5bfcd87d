"""Where in a row of stored windows something may happen to the alarm, and which windows can be left out.

Nothing happens while the votes cannot reach their number. The number of deviating windows among the last n windows
bounds that of the votes from above: the vote filter only holds back or drops deviating windows. The
counts that end an alarm, and those of the higher level, are bounded over n (span + 1) windows: of up to `span` windows
that overlap a single one may vote (`decide.votes`).

Gone through one by one are therefore

* what may complete a count at the present level, and the margin before it: in it the last votes are cast again;
* the beginning of each run of windows that are judged, off, not assessable or learning: votes reach back across;
* where other evidence than votes stands (persistence, event rate, overload), and the margins around it;
* recognised nuisance sounds that deviate, and the margin behind them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from asd_agent import config
from asd_agent.decide.alarm import STEADY_WINDOWS
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.states import OFF
from asd_agent.scoring.decision import Decision
from asd_agent.store.history import NO_Z, NONE, STATES, History
from asd_agent.store.rounding import p_of
from asd_agent.types import Cause, DetectorScore, Level, Quality, State, WindowResult

Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]

_P = np.array([p_of(code) for code in range(30_001)] + [np.nan])  # by code; the last one for NONE
_NORMAL, _ANOMALOUS, _OFF = (STATES.index(s) for s in (State.NORMAL, State.ANOMALOUS, State.OFF))
_NO_QUALITY = Quality(causes=(), level_dbfs=0.0, peak=0.0, dc=0.0, clipped=0.0)  # the decision does not look at it


class Segment:
    """Windows [n] of one baseline, normal or deviating by the limits in question (None: still learning)."""

    def __init__(self, history: History, first: int, end: int, limits: Thresholds | None, window_s: float) -> None:
        part = slice(first, end)
        self.utc_s, self.index = history.utc_s[part], history.index[part]
        self.p = _P[history.p[part]]
        self.transient_p = _P[history.transient_p[part]]
        self.transient_ms = history.transient_ms[part]
        self.operating, self.nuisance = history.operating[part], history.nuisance[part]
        self.cause = history.cause[part]
        self._z = {name: values[part] for name, values in history.z.items()}
        self._words, self._window_s = history.words, window_s
        self.state = history.state[part]
        if limits is not None:
            self.state = self._judged(history.p[part], limits)
        self._columns = (self.index, self.utc_s, self.state, self.p, self.operating, self.nuisance, self.cause,
                         self.transient_p, self.transient_ms)  # fmt: skip

    def __len__(self) -> int:
        return len(self.state)

    def results(self, first: int = 0, end: int | None = None) -> Iterator[WindowResult]:
        """As the pipeline gave them, as far as the decision looks at it. Made from lists: one number after the other
        out of an array costs more than all else."""
        part = slice(first, end)
        scores = zip(*(self._scores(name, values[part]) for name, values in self._z.items()), strict=True)
        rows = zip(*(column[part].tolist() for column in self._columns), strict=True)
        words, none = self._words, itertools.repeat(())
        for row, found in zip(rows, scores if self._z else none, strict=bool(self._z)):
            index, utc_s, state, p, operating, nuisance, cause, transient_p, transient_ms = row
            yield WindowResult(
                index=index,
                start_s=0.0,
                duration_s=self._window_s,
                utc_s=utc_s,
                origin="",
                state=STATES[state],
                quality=_NO_QUALITY,
                p_value=_or_none(p),
                operating=words[operating],
                nuisance=words[nuisance],
                cause=Cause(words[cause]) if words[cause] else None,
                transient_p=_or_none(transient_p),
                transient_at_s=None if transient_ms == NONE else transient_ms / 1000,
                detectors=found if None not in found else tuple(score for score in found if score is not None),
            )

    @staticmethod
    def _scores(name: str, values: npt.NDArray[np.int64]) -> list[DetectorScore | None]:
        """Tenths of z [n] -> one object for each value that occurs, in the place of each window."""
        tenths, at = np.unique(values, return_inverse=True)
        made = [None if t == NO_Z else DetectorScore(name, math.nan, t / 10, math.nan) for t in tenths.tolist()]
        return [made[i] for i in at.tolist()]

    def _judged(self, code: npt.NDArray[np.int64], limits: Thresholds) -> npt.NDArray[np.int64]:
        """The rule of the pipeline (`Thresholds.state`), once for each p-value that occurs; `code`: of p [n]."""
        codes, at = np.unique(code, return_inverse=True)
        found = np.array([[STATES.index(limits.state(float(_P[c]), off)) for off in (False, True)] for c in codes])
        judged = ~np.isnan(self.p) & ~self._is(self.cause, Cause.NOT_RUNNING)
        return np.where(judged, found[at, self._is(self.operating, OFF).astype(int)], self.state)

    def _is(self, column: npt.NDArray[np.int64], word: str) -> Bools:
        return np.asarray(column == (self._words.index(word) if word in self._words else -1), bool)

    @property
    def is_nuisance(self) -> Bools:
        return np.asarray(~self._is(self.nuisance, ""), bool)


class Screen:
    """Of one segment. `past` is asked before every window that is gone through, none left out."""

    def __init__(self, segment: Segment, machine: config.Machine, limits: Thresholds | None, stands: Bools) -> None:
        """`stands` [n]: evidence apart from the votes may raise an alarm, or keep one."""
        raise_k, raise_n = machine.votes
        clear_k, clear_n = config.votes(machine.alarm.clear_votes, "clear_votes")
        span = math.ceil(machine.window_s / machine.hop_s)
        self._margin = max(raise_n, clear_n) * (span + 1) + span + 2
        state, p = segment.state, segment.p
        self._normal: Places = np.flatnonzero(state == _NORMAL)
        self._mode = np.where(state == _ANOMALOUS, _NORMAL, state)
        self._judged = self._mode == _NORMAL
        special = stands | ((state == _ANOMALOUS) & segment.is_nuisance) | (self._judged & np.isnan(p))
        before = _since(stands[::-1])[::-1] < self._margin
        always = self._beginnings() | before | (_since(special) < self._margin)
        if limits is None:
            quiet = np.zeros(len(segment), bool)
            self._looks = {level: np.flatnonzero(always | quiet) for level in Level}
        else:
            alert, danger = self._judged & (p <= limits.alert_p), self._judged & (p <= limits.danger_p)
            below, out = self._judged & (p > limits.alert_clear_p), self._judged & (p > limits.danger_clear_p)
            wide, long = raise_n * (span + 1), clear_n * (span + 1)
            rising = _count(_count(alert, raise_n) >= raise_k, span + 2) > 0  # held back for up to a span
            worse = _count(_count(danger, wide) >= raise_k, span + 2) > 0
            gone = _count(_count(below, long) >= clear_k, span + 2) > 0
            better = _count(_count(out, long) >= clear_k, span + 2) > 0
            self._looks = {
                Level.NORMAL: np.flatnonzero(always | rising),
                Level.ALERT: np.flatnonzero(always | worse | gone),
                Level.DANGER: np.flatnonzero(always | better),
            }

    def past(self, i: int, decision: Decision) -> int:
        """The next window from i on that has to be gone through: those before it change nothing."""
        alarm = decision.alarm.state
        if alarm.mode_windows or STATES[self._mode[i]] is not alarm.mode:
            return i
        if decision.votes.holding:
            return i
        looks = self._looks[alarm.level if alarm.active else Level.NORMAL]
        at = int(np.searchsorted(looks, i))
        look = int(looks[at]) if at < len(looks) else len(self._mode)
        if not self._judged[i] or decision.thresholds is None:
            return max(look - 1, i)  # the last one settles the vote filter
        target = look - self._margin
        if target <= i:
            return i
        before = int(np.searchsorted(self._normal, target, side="right"))
        normal = int(self._normal[before - 1]) if before else -1
        if normal >= i:
            return normal  # it settles the vote filter
        return target if decision.votes.passing else i  # deviating all along

    @property
    def judged(self) -> int:
        """Windows that could be judged."""
        return int(self._judged.sum())

    def votes_at(self, i: int) -> bool:
        return bool(self._judged[i])

    def _beginnings(self) -> Bools:
        change = np.ones(len(self._mode), bool)
        change[1:] = self._mode[1:] != self._mode[:-1]
        return _since(change) < np.where(self._judged, self._margin, STEADY_WINDOWS + 2)


def _since(marks: Bools) -> npt.NDArray[np.int64]:
    """[n]: windows since the last mark; very many where there was none."""
    places = np.arange(len(marks), dtype=np.int64)
    return places - np.maximum.accumulate(np.where(marks, places, -(1 << 40)))


def _count(marks: Bools, length: int) -> npt.NDArray[np.int64]:
    """[n]: marks among the last `length` windows."""
    total = np.cumsum(marks, dtype=np.int64)
    total[length:] -= total[:-length].copy() if length < len(marks) else 0
    return total


def _or_none(p: float) -> float | None:
    return None if math.isnan(p) else p
