"""A damaged database is moved aside, never deleted; what must not be lost is copied into a new one."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from asd_agent.store import schema

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_COLUMNS = {
    "alarm_events": "id, machine, utc_s, event",
    "alarm_states": "machine, state",
    "outbox": "topic, payload, retain",
    "retained": "topic, payload",
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
        rows = {row[0]: row[1:] for row in _readable(aside, table, columns)}
        db.executemany(
            f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", [rows[key] for key in sorted(rows)]
        )
    events: int = db.execute("SELECT count(*) FROM alarm_events").fetchone()[0]
    db.execute("COMMIT")
    for suffix in ("-wal", "-shm"):  # what reading it left behind
        leftover = Path(f"{aside}{suffix}")
        if leftover.exists() and (suffix == "-shm" or leftover.stat().st_size == 0):
            leftover.unlink()
    return events


def _readable(aside: Path, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """Rows as (rowid, *columns), from the front up to the first damage and from the back down to the last."""
    for order in ("ASC", "DESC"):
        try:
            with closing(sqlite3.connect(f"{aside.absolute().as_uri()}?mode=ro", uri=True)) as old:
                # NOT INDEXED: an index may be the damaged part.
                yield from old.execute(f"SELECT rowid, {columns} FROM {table} NOT INDEXED ORDER BY rowid {order}")
        except sqlite3.DatabaseError:
            continue
        return
