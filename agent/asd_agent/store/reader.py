"""Questions to the database from any thread or process, with or without a running daemon."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from asd_agent.errors import StoreError
from asd_agent.store import commits, history, recovery, rows, salvage, scoreblock, summary
from asd_agent.store.history import History
from asd_agent.store.records import ScoreRow
from asd_agent.store.rows import Aside
from asd_agent.store.summary import Summary
from asd_agent.types import AlarmEvent, AlarmState

T = TypeVar("T")
NO_END_UTC_S = 1e12
HISTORY_BLOCKS = 336  # two weeks at a hop of 5 s


class Reader:
    """Opens a read-only connection of its own for each question. Every question raises StoreError.

    Records that are damaged are left out of the answers and counted in `left_out`.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "agent.db"
        self.left_out = 0

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        pass  # nothing is held between questions

    def events(self, since_utc_s: float = 0.0, machine: str | None = None, limit: int = 100) -> list[AlarmEvent]:
        """The newest `limit` alarm events since a time, in the order in which they happened. Those of candidates in
        shadow only by name."""
        with self._connection() as db:
            found = db.execute(
                "SELECT seq, event, crc FROM alarm_events WHERE utc_s >= ?"
                " AND (machine = ? OR ? IS NULL AND instr(machine, '#') = 0)"
                " ORDER BY seq DESC LIMIT ?",
                (since_utc_s, machine, machine, limit),
            ).fetchall()
            return self._sound(reversed(found), rows.event)

    def states(self) -> dict[str, AlarmState]:
        """The alarm of each machine as it was last committed; where that is damaged, as its events tell it."""
        with self._connection() as db:
            states = dict(self._sound(db.execute("SELECT rowid, machine, state, crc FROM alarm_states"), rows.state))
            machines = [machine for (machine,) in db.execute("SELECT DISTINCT machine FROM alarm_events")]
            names = (machine for machine in machines if isinstance(machine, str) and machine.isprintable())
            lost = {machine for machine in names if machine not in states}
            return states | {machine: commits.state_after(recovery.events_of(db, machine)) for machine in lost}

    def scores(
        self,
        machine: str,
        since_utc_s: float = 0.0,
        until_utc_s: float = NO_END_UTC_S,
        limit: int | None = None,
    ) -> list[ScoreRow]:
        """The windows of a machine that start in [since, until], by time; with `limit` only the newest."""
        with self._connection() as db:
            found: list[ScoreRow] = []
            # From the newest back, so that a limit need not unpack a year.
            for windows in self._newest_first(db, machine, round(since_utc_s * 1000), round(until_utc_s * 1000)):
                found += (row for row in windows if since_utc_s <= row.utc_s <= until_utc_s)
                if limit is not None and len(found) >= limit:
                    break
        found.sort(key=lambda row: row.utc_s)
        return found if limit is None else found[max(len(found) - limit, 0) :]

    def history(self, machine: str, since_utc_s: float = 0.0, until_utc_s: float = NO_END_UTC_S) -> Iterator[History]:
        """The windows of a machine that start in [since, until], in the order in which they were judged, some weeks at
        a time."""
        with self._connection() as db:
            parts: list[History] = []
            for part in self._histories(db, machine, round(since_utc_s * 1000), round(until_utc_s * 1000)):
                parts.append(part.between(since_utc_s, until_utc_s))
                if len(parts) == HISTORY_BLOCKS:
                    yield History.joined(parts)
                    parts = []
            if parts:
                yield History.joined(parts)

    def summaries(self, machine: str, since_utc_s: float = 0.0, until_utc_s: float = NO_END_UTC_S) -> list[Summary]:
        """The same windows, an hour or so in one, by time: for a plot of months."""
        with self._connection() as db:
            number = db.execute("SELECT id FROM machines WHERE name = ?", (machine,)).fetchone()
            if number is None:
                return []
            span = (*number, round(since_utc_s * 1000), round(until_utc_s * 1000))
            found = []
            for block, text in db.execute(
                "SELECT id, summary FROM score_blocks WHERE machine = ? AND until_ms >= ? AND since_ms <= ?", span
            ).fetchall():
                known = summary.decode(text)
                found += (
                    [known] if known else self._sound(((block, block),), lambda row: summary.of(_history(db, row[0])))
                )
            tail = db.execute("SELECT id, row FROM score_tail WHERE machine = ? AND utc_ms BETWEEN ? AND ?", span)
            if windows := self._sound(tail, lambda row: rows.score(row[0])):
                found.append(summary.of_rows(windows))
        return sorted(found, key=lambda one: one.since_utc_s)

    def damage(self) -> list[str]:
        """For a person: what was damaged and nobody has looked at yet."""
        found = Aside(self.path.parent).finding()
        words = [found] if found else []
        if self.left_out:
            words.append(f"{self.left_out} damaged records of the history are left out")
        return words + [
            f"the database was damaged: begun anew with the alarm events that could be saved; look at {aside}"
            for aside in salvage.moved_aside(self.path)
        ]

    def _sound(self, found: Iterable[rows.Row], read: Callable[[rows.Row], T]) -> list[T]:
        good, bad = rows.sound(found, read)
        self.left_out += len(bad)
        return good

    def _histories(self, db: sqlite3.Connection, machine: str, since_ms: int, until_ms: int) -> Iterator[History]:
        found = db.execute("SELECT id FROM machines WHERE name = ?", (machine,)).fetchone()
        if found is None:
            return
        blocks = db.execute(
            "SELECT id, id FROM score_blocks WHERE machine = ? AND until_ms >= ? AND since_ms <= ? ORDER BY id",
            (*found, since_ms, until_ms),
        ).fetchall()
        for block in blocks:
            yield from self._sound((block,), lambda row: _history(db, row[0]))
        tail = db.execute(
            "SELECT id, row FROM score_tail WHERE machine = ? AND utc_ms BETWEEN ? AND ? ORDER BY id",
            (*found, since_ms, until_ms),
        )
        if windows := self._sound(tail, lambda row: rows.score(row[0])):
            yield History.of(windows)

    def _newest_first(
        self, db: sqlite3.Connection, machine: str, since_ms: int, until_ms: int
    ) -> Iterator[list[ScoreRow]]:
        found = db.execute("SELECT id FROM machines WHERE name = ?", (machine,)).fetchone()
        if found is None:
            return
        tail = db.execute(
            "SELECT id, row FROM score_tail WHERE machine = ? AND utc_ms BETWEEN ? AND ?",
            (*found, since_ms, until_ms),
        )
        yield self._sound(tail, lambda row: rows.score(row[0]))
        blocks = db.execute(
            "SELECT id, id FROM score_blocks WHERE machine = ? AND until_ms >= ? AND since_ms <= ?"
            " ORDER BY until_ms DESC",
            (*found, since_ms, until_ms),
        ).fetchall()
        for block in blocks:
            yield from self._sound((block,), lambda row: scoreblock.decode(_data(db, row[0])))

    def _mode(self) -> str:
        """Where nothing can be written (the page's unit) and no daemon runs, the database is a file at rest:
        SQLite cannot make the files that a shared one needs."""
        shared = self.path.with_name(f"{self.path.name}-wal").exists() or os.access(self.path.parent, os.W_OK)
        return "mode=ro" if shared else "mode=ro&immutable=1"

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if not self.path.exists():
            raise StoreError(f"{self.path}: no database yet: has the daemon run with this agent.state_dir?")
        db = None
        try:
            db = sqlite3.connect(f"{self.path.absolute().as_uri()}?{self._mode()}", uri=True, timeout=5.0)
            db.text_factory = rows.lenient
            db.execute("BEGIN")  # one state of the database for all parts of the answer
            yield db
        except (sqlite3.Error, ValueError) as exc:
            raise StoreError(
                f"{self.path}: cannot be read ({exc}): read it as the agent's user; "
                "if it is damaged, restart the daemon, which saves what can be read"
            ) from exc
        finally:
            if db is not None:
                db.close()


def _data(db: sqlite3.Connection, block: int) -> bytes:
    """Raises ValueError where its page is damaged, or what is in it is no blob."""
    try:
        (data,) = db.execute("SELECT data FROM score_blocks WHERE id = ?", (block,)).fetchone()
    except sqlite3.DatabaseError as exc:
        raise ValueError(str(exc)) from exc
    if not isinstance(data, bytes):
        raise ValueError("damaged block of scores: it is no blob")
    return data


def _history(db: sqlite3.Connection, block: int) -> History:
    """Of one block, without reading the rest of it. Raises ValueError for a damaged one."""
    try:
        with db.blobopen("score_blocks", "data", block, readonly=True) as blob:
            return history.unpack(blob.read(scoreblock.history_bytes(blob.read(scoreblock.HEAD_BYTES))))
    except sqlite3.DatabaseError as exc:
        raise ValueError(f"damaged block of scores: {exc}") from exc
