"""The agent's store: one lock, one database, scores in batches, alarm events at once and durably."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import structlog

from asd_agent.errors import StoreError
from asd_agent.store import scores
from asd_agent.store.alarms import AlarmLog
from asd_agent.store.commits import Commit
from asd_agent.store.database import Database
from asd_agent.store.history import History
from asd_agent.store.lock import StateLock
from asd_agent.store.outbox import Outbox
from asd_agent.store.reader import NO_END_UTC_S, Reader
from asd_agent.store.records import Message, ScoreRow, StoreHealth
from asd_agent.types import AlarmEvent, AlarmState, WindowResult

log = structlog.get_logger(__name__)

FLUSH_ROWS = 256  # written at the latest then, also without `maintain`
TIDY_S = 60.0
DAY_S = 86_400.0


class Store(Reader):
    """Opens, locks and where needed mends `<state_dir>/agent.db`; raises StoreError. Thread-safe.

    Call `maintain` about every 10 s: it writes gathered scores, expires old ones, retries what had to wait.
    """

    def __init__(self, state_dir: Path, *, score_days: float = 400.0) -> None:
        super().__init__(state_dir)
        self._score_days = score_days
        self._lock = threading.Lock()
        self._rows: list[tuple[str, ScoreRow]] = []
        self._scores_dropped = 0
        self._next_tidy_s = 0.0
        self._state_lock = StateLock(state_dir)
        try:
            self._database = Database(self.path)
        except BaseException:
            self._state_lock.release()
            raise
        self._alarms = AlarmLog(self._database)
        self.outbox = Outbox(self._database)

    @staticmethod
    def reader(state_dir: Path) -> Reader:
        """For a command beside the daemon: needs no lock."""
        return Reader(state_dir)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def add_score(self, machine: str, result: WindowResult, baseline: str = "") -> None:
        """Gather a window for the next batch (few writes: flash memory wears out). Never raises."""
        with self._lock:
            self._rows.append((machine, ScoreRow.of(result, baseline)))
            many = len(self._rows) >= FLUSH_ROWS
        if many:
            self.flush()

    def flush(self) -> None:
        """Write the gathered scores; what the disk has no room for is dropped and counted. Never raises."""
        with self._lock:
            rows, self._rows = self._rows, []
        if not rows:
            return
        try:
            self._database.write_scores(lambda db: scores.append(db, rows, self._database.recovery.aside))
        except StoreError as exc:
            with self._lock:
                self._scores_dropped += len(rows)
            log.warning("scores dropped", windows=len(rows), error=str(exc))

    def scores(
        self,
        machine: str,
        since_utc_s: float = 0.0,
        until_utc_s: float = NO_END_UTC_S,
        limit: int | None = None,
    ) -> list[ScoreRow]:
        self.flush()
        return super().scores(machine, since_utc_s, until_utc_s, limit)

    def history(self, machine: str, since_utc_s: float = 0.0, until_utc_s: float = NO_END_UTC_S) -> Iterator[History]:
        self.flush()
        return super().history(machine, since_utc_s, until_utc_s)

    def hook_queue(self, topic: str) -> Outbox:
        """What waits for one hook; a view of its own with its own acknowledgements."""
        return Outbox(self._database, topic)

    def commit_events(self, events: Sequence[AlarmEvent], state: AlarmState, messages: Sequence[Message] = ()) -> bool:
        """Events of one machine, its alarm state after them and messages, in one durable transaction.

        All or none: a state must never be on disk without the event that led to it. An event's id counts only once.
        True when all is on disk. False when there is no room at all: it waits in memory, in order, unsent;
        `health` says so and `maintain` retries. Never raises.
        """
        committed = self._alarms.commit(Commit(events[0].machine, state, tuple(events), tuple(messages)))
        self.outbox.notify()
        return committed

    def set_state(self, machine: str, state: AlarmState, messages: Sequence[Message] = ()) -> None:
        """A change of the alarm state that is no event (the condition of the windows, say). Never raises."""
        self._alarms.set_state(Commit(machine, state, (), tuple(messages)))
        self.outbox.notify()

    def maintain(self, now_utc_s: float | None = None) -> None:
        """Housekeeping, in short steps. Never raises."""
        if self._alarms.retry():
            self.outbox.notify()
        self.flush()
        self._try("journal of unsent events not tidied", self._alarms.tidy)
        if time.monotonic() < self._next_tidy_s:
            return
        self._next_tidy_s = time.monotonic() + TIDY_S
        before = (time.time() if now_utc_s is None else now_utc_s) - self._score_days * DAY_S
        self._try("old scores not expired", lambda: self._database.write(_expire(before), durable=False))
        self._try("not tidied", self._database.tidy)

    def health(self) -> StoreHealth:
        """Never raises."""
        findings = []
        waiting = self._alarms.waiting
        if self._database.trouble:
            findings.append(f"scores are not being kept ({self._database.trouble}): free some disk space")
        elif not self._database.space.held:
            findings.append("disk nearly full: the reserve for alarm events is in use; free some space")
        if waiting:
            findings.append(f"{waiting} alarm events wait for room on disk")
        if self._alarms.lost:
            findings.append(f"{self._alarms.lost} alarm events lost: no room on disk or in memory")
        if self._alarms.journal_trouble:
            findings.append(f"unsent alarm events are in the database only ({self._alarms.journal_trouble})")
        findings += self.damage()
        return StoreHealth(
            outbox=_depth(self.outbox),
            disk_full=bool(self._database.trouble) or waiting > 0,
            scores_dropped=self._scores_dropped,
            events_waiting=waiting,
            bytes_on_disk=sum(p.stat().st_size for p in self.path.parent.glob("agent.db*") if p.exists()),
            findings=tuple(findings),
        )

    def close(self) -> None:
        """Write what is gathered and let the state directory go. Never raises."""
        self._alarms.retry()
        self.flush()
        self._alarms.close()
        self._database.close()
        self._state_lock.release()

    def _try(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except StoreError as exc:
            log.warning(what, error=str(exc))


def _expire(before_utc_s: float) -> Callable[[sqlite3.Connection], int]:
    return lambda db: scores.expire(db, before_utc_s)


def _depth(outbox: Outbox) -> int:
    """Of the outbox; -1 where it cannot be read."""
    try:
        return outbox.depth()
    except StoreError:
        return -1
