"""Alarm events, kept for ever: on disk with their state and their messages before anything is sent."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial

import msgspec
import structlog

from asd_agent.errors import StoreError
from asd_agent.store import commits
from asd_agent.store.commits import Commit
from asd_agent.store.database import Database

log = structlog.get_logger(__name__)

WAITING = 10_000  # commits in memory while there is no room in the database at all


class AlarmLog:
    """Commits events in the order in which they come. Thread-safe.

    Each commit is first in the journal, then in the database. The journal lets go of it once the broker has
    acknowledged its messages, so an unsent event is always in two files.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._recovery = database.recovery
        self._waiting: deque[Commit] = deque()
        self._lock = threading.Lock()
        self._journalled = {commit.id for commit in self._recovery.commits()} - {""}
        self.journal_trouble = ""  # why the newest commit is not in the journal
        self.lost = 0

    @property
    def waiting(self) -> int:
        with self._lock:
            return sum(len(commit.events) for commit in self._waiting)

    def commit(self, commit: Commit) -> bool:
        """See Store.commit_events."""
        with self._lock:
            if len(self._waiting) >= WAITING:
                self.lost += len(commit.events)
                for event in commit.events:
                    log.error(
                        "alarm event lost: no room on disk or in memory", alarm_event=event.id, machine=event.machine
                    )
                return False
            self._journal(commit)
            self._waiting.append(commit)
            return self._write()

    def set_state(self, commit: Commit) -> bool:
        """A state without events: never before an event that still waits, and not in the journal."""
        with self._lock:
            if self._waiting and not self._waiting[-1].events and self._waiting[-1].machine == commit.machine:
                self._waiting.pop()
            self._waiting.append(commit)
            return self._write()

    def retry(self) -> bool:
        """Commit what had to wait; True when nothing waits any more."""
        with self._lock:
            return self._write()

    def tidy(self) -> None:
        """Let the journal go of what no broker waits for any more; the newest states stay. Raises StoreError."""
        with self._lock:
            sent = self._journalled - self._pending()
            if 2 * len(sent) <= len(self._journalled):  # half of it, so that a long outage is not copied every time
                return
            told = self._recovery.commits()
            states = {commit.machine: Commit(commit.machine, commit.state) for commit in told}
            kept = [*states.values(), *(commit for commit in told if commit.events and commit.id not in sent)]
            try:
                self._recovery.journal.rewrite(msgspec.msgpack.encode(commit) for commit in kept)
            except OSError as exc:
                log.warning("journal of unsent events not tidied", error=str(exc))
                return
            self._journalled -= sent

    def close(self) -> None:
        self._recovery.journal.close()

    def _pending(self) -> set[str]:
        found = self._database.read("SELECT DISTINCT commit_id FROM outbox WHERE commit_id != ''")
        return {commit_id for (commit_id,) in found} | {commit.id for commit in self._waiting}

    def _journal(self, commit: Commit) -> None:
        try:
            self._recovery.journal.append(msgspec.msgpack.encode(commit))
        except OSError as exc:  # the database alone will do
            if not self.journal_trouble:
                log.warning("alarm event not in the journal", path=str(self._recovery.journal.path), error=str(exc))
            self.journal_trouble = exc.strerror or str(exc)
            return
        self.journal_trouble = ""
        self._journalled.add(commit.id)

    def _write(self) -> bool:
        while self._waiting:
            commit = self._waiting[0]
            try:
                self._database.write(partial(commits.insert, commit=commit), durable=bool(commit.events))
            except StoreError as exc:
                log.error("alarm event waits for the disk", machine=commit.machine, events=commit.id, error=str(exc))
                return False
            self._waiting.popleft()
        return True
