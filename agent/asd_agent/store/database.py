"""The one writing connection: transactions, room on a full disk, and a new start after damage."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import structlog

from asd_agent.errors import StoreError
from asd_agent.store import salvage, schema, scores
from asd_agent.store.ballast import Ballast

T = TypeVar("T")
log = structlog.get_logger(__name__)

ROOM_BYTES = 2 << 20  # free pages inside the file that make expiring scores pointless
VACUUM_PAGES = 1024  # per step


class Database:
    """`write` runs a step in one transaction; on a full disk it makes room, a damaged file it rebuilds.

    Thread-safe. Raises StoreError when the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ballast = Ballast(path.with_name("ballast"))
        self.trouble = ""  # why scores cannot be written just now, after all that could be done
        self._lock = threading.RLock()
        self._broken = False  # damaged, and a new one could not be begun yet
        self._db = self._open()
        self.ballast.hold()

    def write(self, step: Callable[[sqlite3.Connection], T], *, durable: bool) -> T:
        """Run `step` in one transaction; `durable` = on the medium when this returns. Raises StoreError.

        On a full disk only a durable step may use the ballast.
        """
        with self._lock:
            result = self._twice(lambda: self._transaction(step, durable), spend=durable)
            if not durable:
                self.trouble = ""
            return result

    def read(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a question. Raises StoreError."""
        with self._lock:
            return self._twice(lambda: self._db.execute(sql, parameters).fetchall(), spend=False)

    def tidy(self) -> None:
        """Hold the ballast again, and give free pages back to the file system when there are many."""
        with self._lock:
            if not self.ballast.hold():
                return
            pages, free = self._pragma("page_count"), self._pragma("freelist_count")
            if free > max(pages // 10, VACUUM_PAGES):
                self.read(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _twice(self, action: Callable[[], T], *, spend: bool) -> T:
        """Once, and once more after mending what can be mended."""
        try:
            if self._broken:
                self._begin_anew()
            try:
                return action()
            except sqlite3.Error as exc:
                if _is_full(exc):
                    self._make_room(spend)
                elif salvage.is_damage(exc):
                    log.error("database damaged", path=str(self.path), error=str(exc))
                    self._begin_anew()
                else:
                    raise
                return action()
        except sqlite3.Error as exc:
            self.trouble = str(exc)
            raise StoreError(f"{self.path}: {exc}: check the disk") from exc

    def _begin_anew(self) -> None:
        self._broken = True
        self._db.close()
        self._db = self._open(damaged=True)
        self._broken = False

    def _transaction(self, step: Callable[[sqlite3.Connection], T], durable: bool) -> T:
        db = self._db
        db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        db.execute("BEGIN IMMEDIATE")
        try:
            result = step(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return result

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def _make_room(self, spend: bool) -> None:
        """Give up the ballast (for good when `spend`), and the oldest scores unless the file has free pages.

        The log is not truncated: from here on it is written over from its start, and needs no new disk space.
        """
        self.ballast.release()
        try:
            while self._pragma("freelist_count") * self._pragma("page_size") < ROOM_BYTES:
                if not self._transaction(scores.expire_oldest, durable=False):
                    break
            self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        except sqlite3.Error as exc:
            log.warning("no room on disk", path=str(self.path), error=str(exc))
        if not spend:
            self.ballast.hold()

    def _open(self, damaged: bool = False) -> sqlite3.Connection:
        try:
            if not damaged:
                try:
                    return self._connect()
                except sqlite3.DatabaseError as exc:
                    if not salvage.is_damage(exc):
                        raise
                    log.error("database damaged", path=str(self.path), error=str(exc))
            return self._rebuild()
        except (sqlite3.Error, OSError) as exc:
            raise StoreError(
                f"{self.path}: the database cannot be opened ({exc}): check the disk and its rights"
            ) from exc

    def _connect(self) -> sqlite3.Connection:
        db = schema.connect(self.path)
        try:
            schema.migrate(db, self.path)
            schema.check(db)
        except BaseException:
            db.close()
            raise
        return db

    def _rebuild(self) -> sqlite3.Connection:
        aside = salvage.move_aside(self.path)
        db = self._connect()
        events = salvage.salvage(aside, db)
        log.error("database moved aside", damaged=str(aside), alarm_events_saved=events)
        return db


def _is_full(exc: sqlite3.Error) -> bool:
    code = getattr(exc, "sqlite_errorcode", None)
    # A shared-memory or log file that cannot grow is reported as an input/output error.
    return code is not None and code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
