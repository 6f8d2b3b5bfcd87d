"""The tables of agent.db and the way from one version of them to the next (PRAGMA user_version)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from asd_agent.errors import StoreError
from asd_agent.store import rows

# Entry i turns version i into i + 1. Entries are never edited once released: a change is a new entry.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE machines (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
        # The newest windows, one row each; an hour of them becomes one compressed row of score_blocks.
        "CREATE TABLE score_tail (id INTEGER PRIMARY KEY, machine INTEGER NOT NULL, utc_ms INTEGER NOT NULL,"
        " row TEXT NOT NULL)",
        "CREATE INDEX score_tail_machine ON score_tail (machine, utc_ms)",
        "CREATE TABLE score_blocks (id INTEGER PRIMARY KEY, machine INTEGER NOT NULL,"
        " since_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL, windows INTEGER NOT NULL,"
        " summary TEXT NOT NULL DEFAULT '', data BLOB NOT NULL)",  # the large one last: the others are read without it
        "CREATE INDEX score_blocks_machine ON score_blocks (machine, until_ms)",
        # Events and states carry their JSON whole, so that a row that can be read can be salvaged.
        "CREATE TABLE alarm_events (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, machine TEXT NOT NULL,"
        " utc_s REAL NOT NULL, event TEXT NOT NULL)",
        "CREATE TABLE alarm_states (machine TEXT PRIMARY KEY, state TEXT NOT NULL)",
        # AUTOINCREMENT: a number is never given twice, so a late PUBACK cannot delete a newer message.
        "CREATE TABLE outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL,"
        " payload BLOB NOT NULL, retain INTEGER NOT NULL)",
        "CREATE INDEX outbox_retained ON outbox (topic) WHERE retain",
        # Zeros that are deleted when alarm events need their room (space.py).
        "CREATE TABLE reserve (zeros BLOB NOT NULL)",
        # What the broker must hold after a reconnect: the newest retained message of each topic.
        "CREATE TABLE retained (topic TEXT PRIMARY KEY, payload BLOB NOT NULL)",
    ),
    (),  # blocks of scores in their second version: an older agent must not read them
    (
        *(f"ALTER TABLE {table} ADD COLUMN crc INTEGER" for table in ("alarm_events", "alarm_states", "outbox")),
        "ALTER TABLE retained ADD COLUMN crc INTEGER",
        # Which commit of the journal a message belongs to; empty where it belongs to no alarm event.
        "ALTER TABLE outbox ADD COLUMN commit_id TEXT NOT NULL DEFAULT ''",
    ),
)

KEPT_TABLES = (
    "alarm_events",
    "alarm_states",
    "outbox",
    "retained",
)  # checked at start, saved from a damaged file

# One entry of each other tree, which is read from its root: some pages, whatever their size.
_PROBES = (
    *(f"SELECT rowid FROM {table} NOT INDEXED ORDER BY rowid DESC LIMIT 1"
      for table in ("machines", "score_tail", "score_blocks", "reserve", "sqlite_sequence")),
    "SELECT name FROM machines ORDER BY name LIMIT 1",
    "SELECT machine FROM score_tail INDEXED BY score_tail_machine ORDER BY machine, utc_ms LIMIT 1",
    "SELECT machine FROM score_blocks INDEXED BY score_blocks_machine ORDER BY machine, until_ms LIMIT 1",
)  # fmt: skip


def connect(path: Path) -> sqlite3.Connection:
    """The writing connection: WAL, no implicit transactions. Raises sqlite3.Error."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    db.text_factory = rows.lenient
    try:
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only has an effect before the first table
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute("PRAGMA synchronous=FULL")
    except sqlite3.Error:
        db.close()
        raise
    return db


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date, each step in one transaction. Raises StoreError, sqlite3.Error."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: written by a newer asd-agent (schema {version}, this one knows {len(MIGRATIONS)}): "
            "install that version again, or set another agent.state_dir"
        )
    for step in range(version, len(MIGRATIONS)):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in MIGRATIONS[step]:
                db.execute(statement)
            db.execute(f"PRAGMA user_version={step + 1}")
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def check(db: sqlite3.Connection) -> None:
    """Read the tables that must not be lost; raises sqlite3.DatabaseError when one is damaged.

    Of the scores only one entry: checking gigabytes would hold up every start.
    """
    for probe in _PROBES:
        db.execute(probe).fetchall()
    for table in KEPT_TABLES:
        answer = db.execute(f"PRAGMA quick_check({table})").fetchone()[0]
        if answer != "ok":
            raise sqlite3.DatabaseError(f"database disk image is malformed: {' '.join(str(answer).split())}")
