"""What a plot of months needs of each block of scores: a line beside it, so that a year opens without unpacking."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from asd_agent.store.history import NONE, STATES, History
from asd_agent.store.records import ScoreRow
from asd_agent.store.rounding import STEP
from asd_agent.types import State

JUDGED = [STATES.index(State.NORMAL), STATES.index(State.ANOMALOUS)]


class Summary(msgspec.Struct, frozen=True, array_like=True):
    """Of windows that follow each other."""

    since_utc_s: float
    until_utc_s: float  # start of the last one
    windows: int
    judged: int
    peak: float | None  # the highest score
    mean: float | None  # of the scores
    baseline: str  # of the last window
    operating: str  # the most frequent; empty when none was judged


def of_rows(rows: Sequence[ScoreRow]) -> Summary:
    return of(History.of(rows))


def of(history: History) -> Summary:
    judged = np.isin(history.state, JUDGED) & (history.p != NONE)
    score = history.p[judged] / STEP
    operating = np.bincount(history.operating[judged]) if judged.any() else np.zeros(0)
    return Summary(
        since_utc_s=float(history.utc_s.min()),
        until_utc_s=float(history.utc_s.max()),
        windows=len(history),
        judged=int(judged.sum()),
        peak=float(score.max()) if len(score) else None,
        mean=round(float(score.mean()), 3) if len(score) else None,
        baseline=history.words[history.baseline[-1]],
        operating=history.words[int(operating.argmax())] if len(operating) else "",
    )


def encode(rows: Sequence[ScoreRow]) -> str:
    return msgspec.json.encode(of_rows(rows)).decode()


def decode(text: object) -> Summary | None:
    """None for a block without one, or a damaged one: of another kind, no UTF-8, no JSON."""
    if not isinstance(text, str):
        return None
    try:
        return msgspec.json.decode(text.encode(), type=Summary)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
