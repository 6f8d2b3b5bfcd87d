"""How the page says times, numbers and states. Times go out as UTC; the browser shows them in its own zone."""

from __future__ import annotations

import math

from asd_agent.types import EventKind, rfc3339

SILENT_DBFS = -150.0
KINDS = {
    EventKind.RAISED: "raised",
    EventKind.ESCALATED: "grew to danger",
    EventKind.DEESCALATED: "fell to alert",
    EventKind.CLEARED: "condition gone",
    EventKind.NAMED: "part named",
    EventKind.OUT_OF_SERVICE: "out of service",
    EventKind.IN_SERVICE: "back in service",
    EventKind.NOT_ASSESSABLE: "cannot be judged",
    EventKind.ASSESSABLE: "can be judged again",
}


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def level(dbfs: float | None) -> str:
    """None = digital silence."""
    return f"{dbfs:.0f} dBFS" if dbfs is not None and dbfs > SILENT_DBFS else "silence"


def lasted(seconds: float) -> str:
    """ "45 s", "12 min", "3.2 h", "4.1 days"."""
    for unit, size, limit in (("s", 1.0, 100.0), ("min", 60.0, 100.0), ("h", 3600.0, 48.0)):
        if seconds < limit * size:
            return f"{seconds / size:.1f} {unit}" if unit == "h" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def stamp(utc_s: float | None) -> str:
    """For a <time> element; empty for no time."""
    return rfc3339(utc_s) if utc_s else ""


def kind(event: EventKind) -> str:
    return KINDS.get(event, event.value.replace("_", " "))


def spaced(name: str) -> str:
    return name.replace("_", " ")


MARKS = {"fault": "it was a fault", "nothing": "it was nothing"}
