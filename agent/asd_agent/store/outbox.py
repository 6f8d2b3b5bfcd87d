"""Messages on disk until a broker has acknowledged them, in the order in which they were committed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence

import structlog

from asd_agent.errors import StoreError
from asd_agent.store import commits, rows
from asd_agent.store.database import Database
from asd_agent.store.records import Message, OutboxItem

log = structlog.get_logger(__name__)

HOOK_TOPIC = "$hook/"  # begins the topics of what is not for the broker
_FOR_BROKER = f"topic NOT LIKE '{HOOK_TOPIC}%'"


class Outbox:
    """The publisher's view of the outbox, or with `topic` that of one hook. Thread-safe.

    A database that is begun anew numbers its rows from 1 again. Therefore `seq` is the row's number plus a base that
    lies above all numbers given before: a late acknowledgement cannot delete a newer message.
    """

    def __init__(self, database: Database, topic: str | None = None) -> None:
        self._database = database
        self._where: tuple[str, tuple[str, ...]] = (_FOR_BROKER, ()) if topic is None else ("topic = ?", (topic,))
        self._listener: Callable[[], None] | None = None
        self._sent: set[int] = set()  # acknowledged, but the disk was too full to say so
        self._base, self._highest, self._rebuilt = 0, 0, database.rebuilt
        self._lock = threading.Lock()

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Call `listener` after each commit of messages, from the committing thread: it must not block."""
        self._listener = listener

    def put(self, messages: Sequence[Message]) -> None:
        """Messages that belong to no alarm event, durably. Raises StoreError."""
        self._database.write(lambda db: commits.insert_messages(db, messages), durable=True)
        self.notify()

    def notify(self) -> None:
        if self._listener is not None:
            self._listener()

    def pending(self, after_seq: int = 0, limit: int = 20) -> list[OutboxItem]:
        """The oldest messages not yet deleted, by `seq`. Raises StoreError."""
        items, damaged = self._read(after_seq, limit)
        if damaged:
            self._database.mend()
            items, damaged = self._read(after_seq, limit)
        if damaged:  # still there: no room to set it aside
            log.error("damaged messages in the outbox are passed over", messages=len(damaged))
        return items

    def delete(self, seqs: Iterable[int]) -> None:
        """The broker has acknowledged these. Never raises: what cannot be deleted now is deleted later."""
        with self._lock:
            self._follow_rebuilding()
            self._sent.update(seq for seq in seqs if seq > self._base)
            doomed = [(seq - self._base,) for seq in self._sent]

            def step(db: sqlite3.Connection) -> None:
                if self._rebuilt == self._database.rebuilt:  # else the numbers belong to other messages by now
                    db.executemany("DELETE FROM outbox WHERE seq = ?", doomed)

            try:
                self._database.write(step, durable=False)
            except StoreError as exc:
                log.warning("outbox not cleared, will retry", messages=len(doomed), error=str(exc))
                return
            self._sent.clear()

    def retained(self) -> list[Message]:
        """The newest retained message of each topic, sent or not. Raises StoreError."""
        found = self._database.read("SELECT rowid, topic, payload, 1, crc FROM retained ORDER BY topic")
        messages, damaged = rows.sound(found, rows.message)
        if damaged:
            self._database.mend()
        return messages

    def keep_hooks(self, topics: Iterable[str]) -> int:
        """Delete what waits for hooks on other topics: nobody will come for it. How many. Raises StoreError."""
        kept = list(topics)

        def step(db: sqlite3.Connection) -> int:
            marks = ", ".join("?" * len(kept))
            where = f"topic LIKE '{HOOK_TOPIC}%' AND topic NOT IN ({marks})"
            return db.execute(f"DELETE FROM outbox WHERE {where}", kept).rowcount

        return self._database.write(step, durable=False)

    def depth(self) -> int:
        """Messages that no broker has acknowledged. Raises StoreError."""
        where, values = self._where
        (count,) = self._database.read(f"SELECT count(*) FROM outbox WHERE {where}", values)[0]
        return int(count) - len(self._sent)

    def _read(self, after_seq: int, limit: int) -> tuple[list[OutboxItem], list[int]]:
        """Up to `limit` messages, and the numbers of damaged rows between them."""
        with self._lock:
            self._follow_rebuilding()
            where, values = self._where
            found = self._database.read(
                "SELECT seq, seq, topic, payload, retain, crc FROM outbox"
                f" WHERE seq > ? AND {where} ORDER BY seq LIMIT ?",
                (max(after_seq - self._base, 0), *values, limit + len(self._sent)),
            )
            items, damaged = rows.sound(found, lambda row: OutboxItem(self._base + row[0], rows.message(row[1:])))
            items = [item for item in items if item.seq not in self._sent][:limit]
            self._highest = max([self._highest, *(item.seq for item in items)])
            return items, damaged

    def _follow_rebuilding(self) -> None:
        if self._rebuilt != self._database.rebuilt:
            self._rebuilt, self._base = self._database.rebuilt, self._highest
            self._sent.clear()
