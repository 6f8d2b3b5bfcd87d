"""Room for alarm events on a full disk, held back in three places where nobody else can take it.

* the write-ahead log, allocated beforehand for all that it holds between two checkpoints;
* a row of zeros in the database: deleted, its pages serve alarm events without the file growing;
* a ballast file, so that the database can be opened, and its log copied back, on a disk without a free byte.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import structlog

from asd_agent.store import scores

log = structlog.get_logger(__name__)

LOG_BYTES = 5 << 20  # SQLite checkpoints at 1000 pages of 4 KiB
ROW_BYTES = 2 << 20
BALLAST_BYTES = 4 << 20
ROOM_BYTES = 2 << 20  # of free pages inside the file: enough for a day of scores
LOW_BYTES = 32 << 20  # with less free disk space the database stops growing


class Space:
    """For the one writing connection; the caller holds its lock, and no transaction is open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ballast = path.with_name("ballast")
        self._row_held = False

    @property
    def held(self) -> bool:
        return self._row_held and _size(self._ballast) >= BALLAST_BYTES

    def hold(self, db: sqlite3.Connection) -> None:
        """Take what is missing of the reserve, as far as there is room. Never raises."""
        log_file = Path(f"{self._path}-wal")
        self._row_held = self._hold_row(db)
        _allocate(log_file, LOG_BYTES, create=False)
        _allocate(self._ballast, BALLAST_BYTES, create=True)

    def release_ballast(self) -> None:
        self._ballast.unlink(missing_ok=True)

    @property
    def low(self) -> bool:
        """Whether the disk is so full that the database should not grow."""
        return self._free_bytes() < LOW_BYTES

    def free_pages(self, db: sqlite3.Connection) -> bool:
        """Expire the oldest scores until the file has room inside; whether it has. Raises sqlite3.Error."""
        # Of a small file only a part, so that a short history is not given up whole.
        wanted = min(ROOM_BYTES // _pragma(db, "page_size"), _pragma(db, "page_count") // 4)
        while _pragma(db, "freelist_count") < wanted:
            db.execute("BEGIN IMMEDIATE")
            deleted = scores.expire_oldest(db)
            db.execute("COMMIT")
            if not deleted:
                return False
        return True

    def make_room(self, db: sqlite3.Connection, spend: bool) -> None:
        """After a write that found no room; the reserve itself is only for what may `spend` it. Never raises."""
        if db.in_transaction:
            db.execute("ROLLBACK")
        if spend:
            self.release_ballast()
        try:
            _restart_log(db)
            if not self.free_pages(db) and spend:  # there are no scores left to give way
                db.execute("DELETE FROM reserve")
                self._row_held = False
            _restart_log(db)
        except sqlite3.Error as exc:
            if db.in_transaction:
                db.execute("ROLLBACK")
            log.warning("no room on disk", path=str(self._path), error=str(exc))

    def _free_bytes(self) -> int:
        status = os.statvfs(self._path.parent)
        return status.f_bavail * status.f_frsize

    def _hold_row(self, db: sqlite3.Connection) -> bool:
        try:
            if db.execute("SELECT count(*) FROM reserve").fetchone() != (1,):
                if self._free_bytes() < 4 * ROW_BYTES:
                    return False
                db.execute("INSERT INTO reserve VALUES (zeroblob(?))", (ROW_BYTES,))
                _restart_log(db)
        except sqlite3.Error:
            return False
        return True


def _restart_log(db: sqlite3.Connection) -> None:
    """Copy the log into the database; it is then written over from its start, and needs no new disk space."""
    db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _size(path: Path) -> int:
    """Ours are allocated whole, or not there (blocks are no measure: some file systems compress zeros)."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _allocate(path: Path, size: int, create: bool) -> None:
    if _size(path) >= size:
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o640)
        try:
            os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)
    except OSError:
        if create:
            path.unlink(missing_ok=True)
