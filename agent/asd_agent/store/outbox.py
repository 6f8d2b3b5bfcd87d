"""Messages on disk until a broker has acknowledged them, in the order in which they were committed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence

import structlog

from asd_agent.errors import StoreError
from asd_agent.store.database import Database
from asd_agent.store.records import Message, OutboxItem

log = structlog.get_logger(__name__)


def insert(db: sqlite3.Connection, messages: Iterable[Message]) -> None:
    """A retained message replaces the older one of its topic, and is remembered for the next connect."""
    for message in messages:
        if message.retain:
            db.execute("DELETE FROM outbox WHERE retain AND topic = ?", (message.topic,))
            if message.payload:
                db.execute("INSERT OR REPLACE INTO retained VALUES (?, ?)", (message.topic, message.payload))
            else:  # an empty retained message makes the broker forget the topic
                db.execute("DELETE FROM retained WHERE topic = ?", (message.topic,))
        db.execute(
            "INSERT INTO outbox (topic, payload, retain) VALUES (?, ?, ?)",
            (message.topic, message.payload, message.retain),
        )


class Outbox:
    """The publisher's view of the outbox. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listener: Callable[[], None] | None = None
        self._sent: set[int] = set()  # acknowledged, but the disk was too full to say so
        self._lock = threading.Lock()

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Call `listener` after each commit of messages, from the committing thread: it must not block."""
        self._listener = listener

    def put(self, messages: Sequence[Message]) -> None:
        """Messages that belong to no alarm event, durably. Raises StoreError."""
        self._database.write(lambda db: insert(db, messages), durable=True)
        self.notify()

    def notify(self) -> None:
        if self._listener is not None:
            self._listener()

    def pending(self, after_seq: int = 0, limit: int = 20) -> list[OutboxItem]:
        """The oldest messages not yet deleted, by `seq`. Raises StoreError."""
        rows = self._database.read(
            "SELECT seq, topic, payload, retain FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?",
            (after_seq, limit + len(self._sent)),
        )
        items = [
            OutboxItem(seq, Message(topic=topic, payload=payload, retain=bool(retain)))
            for seq, topic, payload, retain in rows
            if seq not in self._sent
        ]
        return items[:limit]

    def delete(self, seqs: Iterable[int]) -> None:
        """The broker has acknowledged these. Never raises: what cannot be deleted now is deleted later."""
        with self._lock:
            self._sent.update(seqs)
            doomed = [(seq,) for seq in self._sent]
            try:
                self._database.write(
                    lambda db: db.executemany("DELETE FROM outbox WHERE seq = ?", doomed), durable=False
                )
            except StoreError as exc:
                log.warning("outbox not cleared, will retry", messages=len(doomed), error=str(exc))
                return
            self._sent.clear()

    def retained(self) -> list[Message]:
        """The newest retained message of each topic, sent or not. Raises StoreError."""
        rows = self._database.read("SELECT topic, payload FROM retained ORDER BY topic")
        return [Message(topic=topic, payload=payload, retain=True) for topic, payload in rows]

    def depth(self) -> int:
        """Messages that no broker has acknowledged. Raises StoreError."""
        (count,) = self._database.read("SELECT count(*) FROM outbox")[0]
        return int(count) - len(self._sent)
