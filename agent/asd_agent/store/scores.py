"""The scores' tables: append, pack an hour into a block, expire. The caller owns the transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from asd_agent.store import rows, scoreblock, summary
from asd_agent.store.records import ScoreRow
from asd_agent.store.rows import Aside

BLOCK_WINDOWS = 720  # an hour of windows at a hop of 5 s
EXPIRE_BLOCKS = 64  # at most, per machine and step: no long pauses, and a wrong clock cannot empty the table at once


def append(db: sqlite3.Connection, windows: Iterable[tuple[str, ScoreRow]], aside: Aside) -> None:
    """Insert (machine, row) and pack the machines that have a block's worth; damaged rows go to `aside`."""
    numbers: dict[str, int] = {}
    for machine, row in windows:
        if machine not in numbers:
            numbers[machine] = _number(db, machine)
        db.execute(
            "INSERT INTO score_tail (machine, utc_ms, row) VALUES (?, ?, ?)",
            (numbers[machine], round(row.utc_s * 1000), msgspec.json.encode(row).decode()),
        )
    for number in numbers.values():
        _pack(db, number, aside)


def expire(db: sqlite3.Connection, before_utc_s: float) -> int:
    """Delete blocks that end, and single windows that lie, before a time; returns the rows deleted."""
    before_ms = round(before_utc_s * 1000)
    deleted = 0
    for (machine,) in db.execute("SELECT id FROM machines").fetchall():
        for table, column in (("score_blocks", "until_ms"), ("score_tail", "utc_ms")):
            deleted += db.execute(
                f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE machine = ? AND {column} < ?"
                f" ORDER BY {column} LIMIT {EXPIRE_BLOCKS})",
                (machine, before_ms),
            ).rowcount
    return deleted


def expire_oldest(db: sqlite3.Connection) -> int:
    """Delete the oldest few blocks, or the older half of the single windows; returns the rows deleted."""
    deleted = db.execute(
        f"DELETE FROM score_blocks WHERE id IN (SELECT id FROM score_blocks ORDER BY id LIMIT {EXPIRE_BLOCKS // 8})"
    ).rowcount
    if deleted == 0:
        deleted = db.execute(
            "DELETE FROM score_tail WHERE id IN"
            " (SELECT id FROM score_tail ORDER BY id LIMIT (SELECT (count(*) + 1) / 2 FROM score_tail))"
        ).rowcount
    return int(deleted)


def _number(db: sqlite3.Connection, machine: str) -> int:
    db.execute("INSERT OR IGNORE INTO machines (name) VALUES (?)", (machine,))
    return int(db.execute("SELECT id FROM machines WHERE name = ?", (machine,)).fetchone()[0])


def _pack(db: sqlite3.Connection, machine: int, aside: Aside) -> None:
    found = db.execute(
        "SELECT id, utc_ms, row FROM score_tail WHERE machine = ? ORDER BY id LIMIT ?",
        (machine, BLOCK_WINDOWS),
    ).fetchall()
    if len(found) < BLOCK_WINDOWS:
        return
    packed, bad = rows.sound(found, lambda row: rows.score(row[1]))
    aside.put(db, "score_tail", bad)
    if not packed:
        return
    times = [round(row.utc_s * 1000) for row in packed]
    data = scoreblock.encode(packed)
    db.execute(
        "INSERT INTO score_blocks (machine, since_ms, until_ms, windows, summary, data) VALUES (?, ?, ?, ?, ?, ?)",
        (machine, min(times), max(times), len(packed), summary.encode(packed), data),
    )
    db.execute("DELETE FROM score_tail WHERE machine = ? AND id <= ?", (machine, found[-1][0]))
