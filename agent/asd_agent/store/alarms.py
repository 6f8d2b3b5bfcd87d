"""Alarm events, kept for ever: on disk with their state and their messages before anything is sent."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import structlog

from asd_agent.errors import StoreError
from asd_agent.store import outbox
from asd_agent.store.database import Database
from asd_agent.store.records import Message
from asd_agent.types import AlarmEvent, AlarmState

log = structlog.get_logger(__name__)

WAITING = 10_000  # events in memory while there is no room on disk at all


class _Commit(NamedTuple):
    events: Sequence[AlarmEvent]  # of one machine: all or none of them
    state: AlarmState  # after the last
    messages: Sequence[Message]


class AlarmLog:
    """Commits events in the order in which they come. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Commit] = deque()
        self._lock = threading.Lock()
        self.lost = 0

    @property
    def waiting(self) -> int:
        return sum(len(commit.events) for commit in tuple(self._waiting))

    def commit(self, events: Sequence[AlarmEvent], state: AlarmState, messages: Sequence[Message]) -> bool:
        """See Store.commit_events."""
        with self._lock:
            if len(self._waiting) >= WAITING:
                self.lost += len(events)
                for event in events:
                    log.error(
                        "alarm event lost: no room on disk or in memory", alarm_event=event.id, machine=event.machine
                    )
                return False
            self._waiting.append(_Commit(events, state, messages))
            return self._write()

    def retry(self) -> bool:
        """Commit what had to wait; True when nothing waits any more."""
        with self._lock:
            return self._write()

    def _write(self) -> bool:
        while self._waiting:
            commit = self._waiting[0]
            try:
                self._database.write(partial(_insert, commit=commit), durable=True)
            except StoreError as exc:
                log.error("alarm event waits for the disk", alarm_event=commit.events[0].id, error=str(exc))
                return False
            self._waiting.popleft()
        return True


def set_state(db: sqlite3.Connection, machine: str, state: AlarmState) -> None:
    db.execute("INSERT OR REPLACE INTO alarm_states VALUES (?, ?)", (machine, msgspec.json.encode(state).decode()))


def _insert(db: sqlite3.Connection, commit: _Commit) -> None:
    inserted = sum(
        db.execute(
            "INSERT OR IGNORE INTO alarm_events (id, machine, utc_s, event) VALUES (?, ?, ?, ?)",
            (event.id, event.machine, event.utc_s, msgspec.json.encode(event).decode()),
        ).rowcount
        for event in commit.events
    )
    if inserted:  # else a retry of what had been committed after all
        set_state(db, commit.events[0].machine, commit.state)
        outbox.insert(db, commit.messages)
