"""One commit of alarm events: what the database and the journal are told in the same words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from asd_agent.store import rows
from asd_agent.store.records import Message
from asd_agent.types import AlarmEvent, AlarmState, EventKind, Level, State


class Commit(msgspec.Struct, frozen=True):
    """Events of one machine, all or none of them; without events only its state."""

    machine: str
    state: AlarmState  # after the last event
    events: tuple[AlarmEvent, ...] = ()
    messages: tuple[Message, ...] = ()

    @property
    def id(self) -> str:
        """Empty without events."""
        return self.events[0].id if self.events else ""


def insert(db: sqlite3.Connection, commit: Commit) -> int:
    """Into database tables, inside the caller's transaction; returns how many of the events were new there."""
    inserted = sum(insert_event(db, event) for event in commit.events)
    if inserted or not commit.events:  # else a retry of what had been committed after all
        set_state(db, commit.machine, commit.state)
        insert_messages(db, commit.messages, commit.id)
    return inserted


def insert_event(db: sqlite3.Connection, event: AlarmEvent) -> int:
    text = msgspec.json.encode(event).decode()
    return db.execute(
        "INSERT OR IGNORE INTO alarm_events (id, machine, utc_s, event, crc) VALUES (?, ?, ?, ?, ?)",
        (event.id, event.machine, event.utc_s, text, rows.crc(text)),
    ).rowcount


def insert_messages(db: sqlite3.Connection, messages: Iterable[Message], commit_id: str = "") -> None:
    """A retained message replaces the older one of its topic, and is remembered for the next connect.

    `commit_id`: the commit of the journal that has the others.
    """
    for message in messages:
        if message.retain:
            db.execute("DELETE FROM outbox WHERE retain AND topic = ?", (message.topic,))
            if message.payload:
                check = rows.crc(message.topic, message.payload, 1)
                db.execute("INSERT OR REPLACE INTO retained VALUES (?, ?, ?)", (message.topic, message.payload, check))
            else:  # an empty retained message makes the broker forget the topic
                db.execute("DELETE FROM retained WHERE topic = ?", (message.topic,))
        db.execute(
            "INSERT INTO outbox (topic, payload, retain, crc, commit_id) VALUES (?, ?, ?, ?, ?)",
            (
                message.topic,
                message.payload,
                message.retain,
                rows.crc(message.topic, message.payload, int(message.retain)),
                "" if message.retain else commit_id,
            ),
        )


def set_state(db: sqlite3.Connection, machine: str, state: AlarmState) -> None:
    text = msgspec.json.encode(state).decode()
    db.execute("INSERT OR REPLACE INTO alarm_states VALUES (?, ?, ?)", (machine, text, rows.crc(machine, text)))


_MODES = {
    EventKind.LEARNING: State.LEARNING,
    EventKind.NOT_ASSESSABLE: State.NOT_ASSESSABLE,
    EventKind.ASSESSABLE: State.NORMAL,
}


def state_after(events: list[AlarmEvent]) -> AlarmState:
    """The alarm of one machine as all its events tell it, for a state that cannot be read.

    An alarm that was cleared and not acknowledged counts as latched: its machine ends it where it does not latch.
    """
    state = AlarmState()
    for event in events:
        state = msgspec.structs.replace(
            state, sequence=state.sequence + 1, changed_utc_s=event.utc_s, **_changes(state, event)
        )
    return state


def _changes(state: AlarmState, event: AlarmEvent) -> dict[str, object]:
    ended = AlarmState(latched=False)
    end = {
        name: getattr(ended, name)
        for name in (
            "level",
            "alarm_id",
            "since_utc_s",
            "latched",
            "acknowledged",
            "acknowledged_by",
            "comment",
            "part",
            "grounds",
            "deviation",
        )
    }
    match event.kind:
        case EventKind.RAISED | EventKind.ESCALATED | EventKind.DEESCALATED:
            begun = {} if state.alarm_id else {"alarm_id": event.alarm_id, "since_utc_s": event.utc_s}
            announced = {"announced_id": event.alarm_id} if event.kind is EventKind.RAISED and event.notify else {}
            data = {"grounds": event.grounds, "deviation": event.deviation} if event.grounds is not None else {}
            return {"level": event.level, "latched": False, "reason": event.reason, **data, **begun, **announced}
        case EventKind.NAMED:
            return {"part": event.part, "reason": event.reason}
        case EventKind.CLEARED:
            kept = state.level is not Level.NORMAL and not state.acknowledged
            return {
                **({"latched": True} if kept else end),
                "announced_id": "" if event.notify else state.announced_id,
            }
        case EventKind.ACKNOWLEDGED:
            seen = {"acknowledged": True, "acknowledged_by": event.by, "comment": event.comment}
            return end if state.latched else seen
        case EventKind.SHELVED:
            return {"shelved_until_utc_s": event.until_utc_s, "shelve_reason": event.reason}
        case EventKind.UNSHELVED:
            return {"shelved_until_utc_s": 0.0, "shelve_reason": ""}
        case EventKind.OUT_OF_SERVICE | EventKind.IN_SERVICE:
            return {"out_of_service": event.kind is EventKind.OUT_OF_SERVICE}
        case EventKind.LEARNING | EventKind.NOT_ASSESSABLE | EventKind.ASSESSABLE:
            return {"mode": _MODES[event.kind]}
        case EventKind.MARKED_FAULT | EventKind.MARKED_NOTHING:  # said of an alarm, it changes none
            return {}
