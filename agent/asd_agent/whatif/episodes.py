"""Alarm events -> alarms with a beginning and an end."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from asd_agent.reasons import PartVerdict
from asd_agent.types import AlarmEvent, EventKind, Level, rfc3339

MARKS = {EventKind.MARKED_FAULT: "fault", EventKind.MARKED_NOTHING: "nothing"}


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm, from its raising until the condition has gone."""

    alarm_id: str
    raised_utc_s: float
    cleared_utc_s: float | None = None  # None while it is present
    level: Level  # the highest
    announced: bool  # False when it was shelved or out of service all the time
    reason: str = ""
    part: PartVerdict | None = None  # the last one that was named
    mark: str = ""  # what a person said of it afterwards: fault, nothing

    def overlaps(self, other: Episode) -> bool:
        return self.raised_utc_s <= (other.cleared_utc_s or 1e12) and other.raised_utc_s <= (self.cleared_utc_s or 1e12)


class AlarmSpan(msgspec.Struct, frozen=True, kw_only=True):
    """An episode as it is said to others."""

    alarm_id: str
    raised: str  # RFC 3339
    cleared: str | None  # None while it is present
    level: Level  # the highest
    announced: bool
    reason: str
    mark: str


def span_of(episode: Episode) -> AlarmSpan:
    cleared = episode.cleared_utc_s
    return AlarmSpan(
        alarm_id=episode.alarm_id,
        raised=rfc3339(episode.raised_utc_s),
        cleared=None if cleared is None else rfc3339(cleared),
        level=episode.level,
        announced=episode.announced,
        reason=episode.reason,
        mark=episode.mark,
    )


def episodes(events: Iterable[AlarmEvent]) -> list[Episode]:
    """In the order of their raising. An alarm that returns while it is latched is the same alarm still."""
    found: dict[str, Episode] = {}
    for event in events:
        known = found.get(event.alarm_id)
        if event.kind is EventKind.RAISED and known is None:
            known = Episode(
                alarm_id=event.alarm_id,
                raised_utc_s=event.utc_s,
                level=event.level,
                announced=event.notify,
                reason=event.reason,
                part=event.part,
            )
        elif known is not None and event.kind in (EventKind.RAISED, EventKind.ESCALATED):
            worse = Level.DANGER if Level.DANGER in (known.level, event.level) else Level.ALERT
            known = msgspec.structs.replace(
                known, level=worse, announced=known.announced or event.notify, cleared_utc_s=None
            )
        elif known is not None and event.kind is EventKind.NAMED:
            known = msgspec.structs.replace(known, part=event.part, reason=event.reason)
        elif known is not None and event.kind is EventKind.CLEARED and known.cleared_utc_s is None:
            known = msgspec.structs.replace(known, cleared_utc_s=event.utc_s)
        elif known is not None and event.kind in MARKS:
            known = msgspec.structs.replace(known, mark=MARKS[event.kind])
        else:
            continue
        found[event.alarm_id] = known
    return list(found.values())
