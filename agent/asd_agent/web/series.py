"""Stored scores as a plot wants them: at most so many points, each with the highest score of its time.

What is deleted is detail, never a peak: an alarm of a minute is seen in the plot of a year.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.errors import BaselineError
from asd_agent.store import History, Reader
from asd_agent.store.history import NONE, STATES
from asd_agent.store.rounding import STEP
from asd_agent.store.summary import JUDGED
from asd_agent.types import Floats, State, rfc3339

MOST_POINTS = 2000
MOST_BANDS = 400
DETAILED_S = 15 * 86_400.0  # a longer time is drawn from summaries
UNJUDGED = {State.NOT_ASSESSABLE: "cannot be judged", State.OFF: "off", State.LEARNING: "not calibrated"}
KEPT_LIMITS = 64


class Band(msgspec.Struct, frozen=True):
    """A time in one operating state, or in which nothing was judged."""

    since: str  # RFC 3339
    until: str
    name: str


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Columns [n]; null where no window was judged."""

    machine: str
    since: str  # RFC 3339
    until: str
    windows: int
    utc_s: list[float]  # seconds since 1970, the middle of each bucket
    peak: list[float | None]  # the highest score
    mean: list[float | None]
    score_limit: list[float | None]  # from which a window deviated, by the baseline of then
    bands: list[Band] = []


@dataclass
class _Columns:
    """Windows, or summaries of them, by time."""

    utc_s: Floats  # [n]
    until_utc_s: Floats
    peak: Floats  # NaN where there is none
    total: Floats  # sum of the scores
    judged: Floats  # how many of them
    state: list[str]  # operating state, or why there is none
    limit: Floats
    windows: int


class Limits:
    """From which score a window deviates, by baseline, with the alarm settings of today."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()

    def of(self, machine: config.Machine, version: str) -> float:
        """NaN for a baseline that is gone, and without one."""
        key = (machine.id, version)
        if key not in self._known:
            self._known[key] = self._read(machine, version)
            while len(self._known) > KEPT_LIMITS:
                self._known.popitem(last=False)
        return self._known[key]

    def _read(self, machine: config.Machine, version: str) -> float:
        if not version:
            return math.nan
        try:
            manifest = BaselineStore(self._state_dir, machine.id).manifest(version)
        except BaselineError:
            return math.nan
        return -math.log10(manifest.thresholds(machine).alert_p)


def series(
    reader: Reader, limits: Limits, machine: config.Machine, since_utc_s: float, until_utc_s: float, points: int
) -> Series:
    """The windows that start in [since, until] in at most `points` buckets. Raises StoreError."""
    points = min(max(points, 1), MOST_POINTS)
    edges = np.linspace(since_utc_s, until_utc_s, points + 1)
    peak, total = np.full(points, -np.inf), np.zeros(points)
    limit, judged = np.full(points, np.nan), np.zeros(points)
    windows, bands = 0, _Bands(machine.hop_s, (until_utc_s - since_utc_s) / MOST_BANDS)
    parts = _summed if until_utc_s - since_utc_s > DETAILED_S else _parts
    for part in parts(reader, limits, machine, since_utc_s, until_utc_s):
        at = np.clip(np.searchsorted(edges, part.utc_s, side="right") - 1, 0, points - 1)
        known = ~np.isnan(part.peak)
        np.maximum.at(peak, at[known], part.peak[known])
        np.add.at(total, at, part.total)
        np.add.at(judged, at, part.judged)
        limit[at] = part.limit
        windows += part.windows
        bands.add(part)
    used = (judged > 0) | ~np.isnan(limit)
    middle = (edges[:-1] + edges[1:]) / 2
    with np.errstate(invalid="ignore"):
        mean = total / judged
    return Series(
        machine=machine.id,
        since=rfc3339(since_utc_s),
        until=rfc3339(until_utc_s),
        windows=windows,
        utc_s=[round(t, 3) for t in middle[used].tolist()],
        peak=_rounded(np.where(judged > 0, peak, np.nan)[used]),
        mean=_rounded(mean[used]),
        score_limit=_rounded(limit[used]),
        bands=[Band(rfc3339(since), rfc3339(until), name) for since, until, name in bands.found],
    )


def _parts(reader: Reader, limits: Limits, machine: config.Machine, since: float, until: float) -> Iterator[_Columns]:
    for history in reader.history(machine.id, since, until):
        if not len(history):
            continue
        order = np.argsort(history.utc_s, kind="stable")  # a clock may have been set back
        judged = np.isin(history.state, JUDGED) & (history.p != NONE)
        score = np.where(judged, history.p / STEP, np.nan)[order]
        by_version = np.array([limits.of(machine, version) for version in history.words])
        states = _states(history)
        yield _Columns(
            utc_s=history.utc_s[order],
            until_utc_s=history.utc_s[order],
            peak=score,
            total=np.nan_to_num(score),
            judged=judged[order].astype(np.float64),
            state=[states[i] for i in order.tolist()],
            limit=by_version[history.baseline][order],
            windows=len(history),
        )


def _summed(reader: Reader, limits: Limits, machine: config.Machine, since: float, until: float) -> Iterator[_Columns]:
    found = reader.summaries(machine.id, since, until)
    if not found:
        return
    judged = np.array([one.judged for one in found], np.float64)
    yield _Columns(
        utc_s=np.array([max(one.since_utc_s, since) for one in found]),
        until_utc_s=np.array([one.until_utc_s for one in found]),
        peak=np.array([math.nan if one.peak is None else one.peak for one in found]),
        total=np.array([one.mean or 0.0 for one in found]) * judged,
        judged=judged,
        state=[one.operating if one.judged else UNJUDGED[State.NOT_ASSESSABLE] for one in found],
        limit=np.array([limits.of(machine, one.baseline) for one in found]),
        windows=sum(one.windows for one in found),
    )


def _states(history: History) -> list[str]:
    names = [UNJUDGED.get(state, "") for state in STATES]
    return [
        names[state] or history.words[operating]
        for state, operating in zip(history.state.tolist(), history.operating.tolist(), strict=True)
    ]


class _Bands:
    """Runs of one state (since, until, name); those too short to be seen go into the run before them."""

    def __init__(self, hop_s: float, shortest_s: float) -> None:
        self._hop_s, self._shortest_s = hop_s, shortest_s
        self.found: list[tuple[float, float, str]] = []

    def add(self, part: _Columns) -> None:
        for utc_s, until_s, name in zip(part.utc_s.tolist(), part.until_utc_s.tolist(), part.state, strict=True):
            end_s = until_s + self._hop_s
            if not self.found or utc_s - self.found[-1][1] > max(4 * self._hop_s, self._shortest_s):
                self.found.append((utc_s, end_s, name))
                continue
            since_s, last_s, before = self.found[-1]
            if name == before or utc_s - since_s < self._shortest_s:
                self.found[-1] = (since_s, end_s, before)
            else:
                self.found.append((last_s, end_s, name))


def _rounded(values: Floats) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 3) for value in values.tolist()]
