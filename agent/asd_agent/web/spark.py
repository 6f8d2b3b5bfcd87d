"""The score of the last hours as a small picture beside a machine: an SVG path and the height of the limit."""

from __future__ import annotations

import math

import msgspec

from asd_agent.types import utc_s
from asd_agent.web import words
from asd_agent.web.series import Series

WIDTH, HEIGHT = 240.0, 48.0
HOURS = 6.0
POINTS = 120
SHORTEST_S = 600.0
HEADROOM = 1.6  # the limit stands below the top, so that what is above it can be seen


class Spark(msgspec.Struct, frozen=True, kw_only=True):
    path: str = ""
    limit: float | None = None  # its height
    since: str = ""  # in words: "6 h ago"
    words: str = "no scores yet"


def spark(series: Series) -> Spark:
    known = [(t, p) for t, p in zip(series.utc_s, series.peak, strict=True) if p is not None]
    limit = next((x for x in reversed(series.score_limit) if x is not None), None)
    top = max([p for _, p in known] + [HEADROOM * limit if limit else 0.0, 0.5])
    since_s = utc_s(series.since)
    span = max(utc_s(series.until) - since_s, 1.0)
    step_s = span / POINTS
    parts: list[str] = []
    before = -math.inf
    for t, p in known:
        x, y = WIDTH * (t - since_s) / span, _height(p, top)
        parts.append(f"{'L' if t - before < 2.5 * step_s else 'M'}{x:.1f} {y:.1f}")
        before = t
    return Spark(
        path="".join(parts),
        limit=None if limit is None else _height(limit, top),
        since=f"{words.lasted(span)} ago",
        words=_words(known, limit),
    )


def _height(value: float, top: float) -> float:
    return round(HEIGHT - 1 - (HEIGHT - 2) * min(value / top, 1.0), 1)


def _words(known: list[tuple[float, float]], limit: float | None) -> str:
    if not known:
        return "no score in this time"
    highest = max(p for _, p in known)
    said = f"score over time: highest {highest:.1f}, now {known[-1][1]:.1f}"
    return said if limit is None else f"{said}, limit {limit:.1f}"
