"""The one writing connection: transactions, room on a full disk, and a new start after damage."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import structlog

from asd_agent.errors import StoreError
from asd_agent.store import salvage, schema
from asd_agent.store.recovery import Recovery
from asd_agent.store.space import Space

T = TypeVar("T")
log = structlog.get_logger(__name__)

VACUUM_PAGES = 1024  # given back to the file system per step, when there are many free ones


class Database:
    """`write` runs a step in one transaction; on a full disk it makes room, a damaged file it rebuilds.

    Thread-safe. Raises StoreError when the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recovery = Recovery(path.parent)
        self.rebuilt = 0  # how often it was begun anew
        self.space = Space(path)
        self.trouble = ""  # why scores cannot be written just now, after all that could be done
        self._lock = threading.RLock()
        self._broken = False  # damaged, and a new one could not be begun yet
        self._db = self._open()
        self.space.hold(self._db)

    def write(self, step: Callable[[sqlite3.Connection], T], *, durable: bool) -> T:
        """Run `step` in one transaction; `durable` = on the medium when this returns. Raises StoreError.

        On a full disk only a durable step may use the reserve.
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

    def write_scores(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """As `write`, but on a disk that is nearly full only into pages that older scores give up.

        Raises StoreError.
        """
        with self._lock:
            if self.space.low and not self._twice(lambda: self.space.free_pages(self._db), spend=False):
                self.trouble = "the disk is nearly full"
                raise StoreError(f"{self.path}: {self.trouble}: free some space")
            return self.write(step, durable=False)

    def mend(self) -> None:
        """Set damaged rows aside, and bring back what the journal knows of them. Raises StoreError."""
        with self._lock:
            self._twice(lambda: self.recovery.run(self._db, rebuilt=False), spend=True)

    def tidy(self) -> None:
        """Hold the reserve again, and give back free pages when there are many. Raises StoreError."""
        with self._lock:
            self.space.hold(self._db)
            if self.space.low:
                return
            ((pages,),), ((free,),) = self.read("PRAGMA page_count"), self.read("PRAGMA freelist_count")
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
                    self.space.make_room(self._db, spend)
                elif salvage.is_damage(exc):
                    log.error("database damaged", path=str(self.path), error=str(exc))
                    self._begin_anew()
                else:
                    raise
                return action()
        except sqlite3.Error as exc:
            self.trouble = str(exc)
            raise StoreError(f"{self.path}: {exc}: check the disk") from exc

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

    def _begin_anew(self) -> None:
        self._broken = True
        self._db.close()
        self._db = self._rebuild()
        self._broken = False

    def _open(self) -> sqlite3.Connection:
        """Open, or rebuild a damaged file. Raises StoreError."""
        try:
            try:
                return self._recovered()
            except sqlite3.Error as exc:
                if salvage.is_damage(exc):
                    log.error("database damaged", path=str(self.path), error=str(exc))
                    return self._rebuild()
                self.space.release_ballast()  # even opening needs some room
                return self._recovered()
        except (sqlite3.Error, OSError) as exc:
            raise StoreError(f"{self.path}: the database cannot be opened ({exc}): check the disk") from exc

    def _recovered(self) -> sqlite3.Connection:
        db = self._connect()
        try:
            self.recovery.run(db, rebuilt=False)
        except BaseException:
            db.close()
            raise
        return db

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
        """A new database with what can be read from the damaged one. Raises StoreError, sqlite3.Error."""
        try:
            aside = salvage.move_aside(self.path)
        except OSError as exc:
            raise StoreError(f"{self.path}: damaged, and cannot be moved aside ({exc.strerror})") from exc
        db = self._connect()
        events = salvage.salvage(aside, db)
        self.recovery.run(db, rebuilt=True)
        self.rebuilt += 1
        log.error("database moved aside", damaged=str(aside), alarm_events_saved=events)
        return db


def _is_full(exc: sqlite3.Error) -> bool:
    code = getattr(exc, "sqlite_errorcode", None)
    # A shared-memory or log file that cannot grow is reported as an input/output error.
    return code is not None and code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
