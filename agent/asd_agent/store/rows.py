"""Rows of the tables that must not be lost: each has a checksum, and one that cannot be believed is set aside.

SQLite notices a damaged page by its structure only. Bytes that have changed inside a stored text are noticed here.
"""

from __future__ import annotations

import base64
import os
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from asd_agent.store.records import Message, ScoreRow
from asd_agent.types import AlarmEvent, AlarmState

T = TypeVar("T")
Row = tuple[Any, ...]
log = structlog.get_logger(__name__)

ASIDE = "damaged-rows.jsonl"  # in the state directory
ASIDE_BYTES = 8 << 20  # what is beyond it is only counted


def lenient(data: bytes) -> str:
    """Text that is not UTF-8 is damage of one row, which must not end the question: for `text_factory`."""
    return data.decode(errors="surrogateescape")


def crc(*columns: object) -> int:
    """Checksum of a row. Raises ValueError for what cannot have been written."""
    return zlib.crc32(msgspec.msgpack.encode(columns))


def event(row: Row) -> AlarmEvent:
    """From (event, crc). Raises ValueError for a damaged row."""
    text, check = row
    return _decoded(text, check, (text,), AlarmEvent)


def state(row: Row) -> tuple[str, AlarmState]:
    """From (machine, state, crc). Raises ValueError for a damaged row."""
    machine, text, check = row
    return machine, _decoded(text, check, (machine, text), AlarmState)


def message(row: Row) -> Message:
    """From (topic, payload, retain, crc). Raises ValueError for a damaged row."""
    topic, payload, retain, check = row
    if not isinstance(topic, str) or not isinstance(payload, bytes) or retain not in (0, 1):
        raise ValueError("a value of another kind")
    _compare(check, (topic, payload, retain))
    topic.encode()  # raises for text that is not UTF-8
    if not topic or set("#+\0") & set(topic):
        raise ValueError("no topic to publish on")
    return Message(topic=topic, payload=payload, retain=bool(retain))


def score(text: object) -> ScoreRow:
    """From the JSON of a window. Raises ValueError for damage."""
    return _decoded(text, None, (), ScoreRow)


def _decoded(text: object, check: int | None, checked: Row, kind: type[T]) -> T:
    if not isinstance(text, str):
        raise ValueError("a value of another kind")
    _compare(check, checked)
    try:
        return msgspec.json.decode(text.encode(), type=kind)
    except msgspec.DecodeError as exc:
        raise ValueError(str(exc)) from exc


def _compare(check: object, columns: Row) -> None:
    """A row of an older agent has no checksum."""
    if check is not None and check != crc(*columns):
        raise ValueError("the checksum does not fit")


class Aside:
    """What cannot be believed, kept in a file that a person deletes when it has been looked at."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / ASIDE
        self.counts: Counter[str] = Counter()  # of each table, in this process

    def put(self, db: sqlite3.Connection, table: str, keys: Iterable[int]) -> None:
        """Move rows out of a table, inside the caller's transaction. Raises sqlite3.Error."""
        for key in keys:
            found = db.execute(f"SELECT * FROM {table} WHERE rowid = ?", (key,)).fetchone()
            if found is None:
                continue
            self._keep(table, found)
            db.execute(f"DELETE FROM {table} WHERE rowid = ?", (key,))
            self.counts[table] += 1
            log.error("damaged record set aside", table=table, row=key, kept_in=str(self.path))

    def _keep(self, table: str, row: Row) -> None:
        line = msgspec.json.encode({"table": table, "row": [_plain(value) for value in row]}) + b"\n"
        try:
            if self.path.exists() and self.path.stat().st_size > ASIDE_BYTES:
                return
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)
        except OSError as exc:  # a full disk must not bring back what blocks the rest
            log.error("damaged record not kept", table=table, error=str(exc))

    def finding(self) -> str:
        """For a person, as long as the file is there; empty = nothing."""
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return ""
        tables: Counter[str] = Counter()
        for line in lines:
            try:
                tables[str(msgspec.json.decode(line)["table"])] += 1
            except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):
                tables["unknown"] += 1
        words = ", ".join(f"{n} of {table}" for table, n in sorted(tables.items()))
        return f"damaged records were set aside ({words}): look at {self.path}, check the disk, then delete the file"


def _plain(value: object) -> object:
    if isinstance(value, str):
        value = value.encode(errors="surrogateescape")
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def sound(rows: Iterable[Row], read: Callable[[Row], T]) -> tuple[list[T], list[int]]:
    """Rows of (rowid, *columns) -> what `read` makes of the columns, and the rowids of those that it refuses."""
    good: list[T] = []
    bad: list[int] = []
    for key, *columns in rows:
        try:
            good.append(read(tuple(columns)))
        except ValueError:
            bad.append(key)
    return good, bad
