"""A damaged database is moved aside, never deleted; what must not be lost is copied into a new one."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from asd_agent.store import rows, schema

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
ONE_BY_ONE = 200_000  # rows of a damaged part that are asked for singly
UNKNOWN_END = 1000  # so many where the last row cannot be found
_COLUMNS = {
    "alarm_events": "id, machine, utc_s, event, crc",
    "alarm_states": "machine, state, crc",
    "outbox": "topic, payload, retain, crc, commit_id",
    "retained": "topic, payload, crc",
}


def is_damage(exc: sqlite3.Error) -> bool:
    """Whether the file itself is broken (not: full, locked, unreadable)."""
    code = getattr(exc, "sqlite_errorcode", None)
    return "malformed" in str(exc) if code is None else code & 0xFF in _DAMAGE


def move_aside(path: Path) -> Path:
    """Rename the database with its log; returns the new name. Raises OSError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in ("-wal", ""):
        source = Path(f"{path}{suffix}")
        if source.exists():
            source.rename(f"{aside}{suffix}")
    Path(f"{path}-shm").unlink(missing_ok=True)  # only an index of the log
    return aside


def moved_aside(path: Path) -> list[Path]:
    """The damaged databases that nobody has looked after yet."""
    return sorted(p for p in path.parent.glob(f"{path.name}.damaged-*") if not p.name.endswith(("-wal", "-shm")))


def salvage(aside: Path, db: sqlite3.Connection) -> int:
    """Copy the readable rows of the kept tables into the new database; returns the number of alarm events."""
    db.execute("BEGIN IMMEDIATE")
    for table in schema.KEPT_TABLES:
        columns = _COLUMNS[table]
        marks = ", ".join("?" * (columns.count(",") + 1))
        found = {row[0]: [_bindable(value) for value in row[1:]] for row in _readable(aside, table, columns)}
        db.executemany(
            f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", [found[key] for key in sorted(found)]
        )
    events: int = db.execute("SELECT count(*) FROM alarm_events").fetchone()[0]
    db.execute("COMMIT")
    for suffix in ("-wal", "-shm"):  # what reading it left behind
        leftover = Path(f"{aside}{suffix}")
        if leftover.exists() and (suffix == "-shm" or leftover.stat().st_size == 0):
            leftover.unlink()
    return events


def _readable(aside: Path, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """Rows as (rowid, *columns): from the front up to the first damage, from the back down to the last, and one by one
    between them."""
    last = {"ASC": 0, "DESC": 0}
    for order in last:
        try:
            # NOT INDEXED: an index may be the damaged part.
            for row in _asked(aside, f"SELECT rowid, {columns} FROM {table} NOT INDEXED ORDER BY rowid {order}"):
                last[order] = row[0]
                yield row
        except sqlite3.DatabaseError:
            continue
        return
    end = last["DESC"] or last["ASC"] + UNKNOWN_END
    between = range(last["ASC"] + 1, min(end, last["ASC"] + 1 + ONE_BY_ONE))
    with closing(_connected(aside)) as old:
        for rowid in between:
            try:
                yield from old.execute(f"SELECT rowid, {columns} FROM {table} NOT INDEXED WHERE rowid = ?", (rowid,))
            except sqlite3.DatabaseError:
                continue


def _bindable(value: object) -> object:
    """Text that is not UTF-8 goes in as bytes, and is set aside as such."""
    if not isinstance(value, str):
        return value
    data = value.encode(errors="surrogateescape")
    return value if value.isascii() or data.decode(errors="replace") == value else data


def _asked(aside: Path, sql: str) -> Iterator[tuple[Any, ...]]:
    with closing(_connected(aside)) as old:
        yield from old.execute(sql)


def _connected(aside: Path) -> sqlite3.Connection:
    old = sqlite3.connect(f"{aside.absolute().as_uri()}?mode=ro", uri=True)
    old.text_factory = rows.lenient
    return old
