"""What an alarm is like: the earlier alarm, of which a person has said what it was, that deviates in the same way.

People record a cause with a mark (`asd-agent alarms mark`, the local page, the verb `mark`): its comment. Two alarms
are compared by which detectors deviate, and how much in relation to each other: the cosine of their standard scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import structlog

from asd_agent.errors import StoreError
from asd_agent.store import Store
from asd_agent.types import AlarmEvent, DetectorScore, EventKind, NearestCause

log = structlog.get_logger()

EVENTS = 10_000
MOST = 50  # marked alarms that are compared, the newest
BACK_S = 600.0  # before an alarm its deciding windows are looked for
LIKE = 0.9  # less alike is not named
FEWEST = 2  # detectors in common
_RAISES = (EventKind.RAISED, EventKind.ESCALATED)
_MARKS = (EventKind.MARKED_FAULT, EventKind.MARKED_NOTHING)

Deviation = Mapping[str, float]  # detector -> z


def nearest_cause(store: Store, machine: str, detectors: Iterable[DetectorScore]) -> NearestCause | None:
    """None where nothing alike has a recorded cause. Never raises: no alarm waits for it."""
    now = {detector.name: detector.z for detector in detectors}
    try:
        events = store.events(machine=machine, limit=EVENTS)
        marks = {e.alarm_id: e for e in events if e.kind in _MARKS and e.comment}  # the last mark of an alarm counts
        raised = {e.alarm_id: e for e in events if e.kind in _RAISES and e.alarm_id in marks}
        found = [
            NearestCause(
                alarm_id=alarm_id,
                cause=marks[alarm_id].comment,
                fault=marks[alarm_id].kind is EventKind.MARKED_FAULT,
                similarity=round(similarity(now, _deviation(store, raised[alarm_id])), 2),
            )
            for alarm_id in list(raised)[-MOST:]
        ]
    except StoreError as exc:
        log.warning("recorded causes cannot be read", machine=machine, error=str(exc))
        return None
    best = max(found, key=lambda cause: cause.similarity, default=None)
    return best if best is not None and best.similarity >= LIKE else None


def similarity(one: Deviation, other: Deviation) -> float:
    """Cosine of the scores of the detectors in common, -1 to 1; 0 where there are too few."""
    common = sorted(one.keys() & other.keys())
    a, b = (np.array([scores[name] for name in common]) for scores in (one, other))
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if len(common) >= FEWEST and size > 0 else 0.0


def _deviation(store: Store, event: AlarmEvent) -> Deviation:
    """Mean over the windows that decided."""
    rows = [
        row.detectors
        for row in store.scores(event.machine, event.utc_s - BACK_S, event.utc_s + 1.0)
        if row.index in event.deciding_windows
    ]
    names = {name for row in rows for name in row}
    return {name: float(np.mean([row[name][1] for row in rows if name in row])) for name in names}
