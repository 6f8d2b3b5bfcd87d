"""What is done to a database that has been opened: damaged rows are set aside, the journal is replayed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import structlog

from asd_agent.store import commits, rows, salvage
from asd_agent.store.commits import Commit
from asd_agent.store.journal import Journal
from asd_agent.store.rows import Aside
from asd_agent.types import AlarmEvent, AlarmState

log = structlog.get_logger(__name__)

_READERS = {
    "alarm_states": ("machine, state, crc", rows.state),
    "outbox": ("topic, payload, retain, crc", rows.message),
    "retained": ("topic, payload, 1, crc", rows.message),
}


class Recovery:
    """Owns the journal of unsent events and the file of damaged rows."""

    def __init__(self, state_dir: Path) -> None:
        self.journal = Journal(state_dir / "unsent.journal")
        self.aside = Aside(state_dir)

    def commits(self) -> list[Commit]:
        """What the journal tells, in order."""
        found = []
        for record in self.journal.records():
            try:
                found.append(msgspec.msgpack.decode(record, type=Commit))
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:  # the checksum fits: written by another version
                log.warning("record of the journal not understood", error=str(exc))
        return found

    def run(self, db: sqlite3.Connection, rebuilt: bool) -> None:
        """In one transaction. Raises sqlite3.Error for damage; what the disk has no room for is left as it is."""
        try:
            db.execute("BEGIN IMMEDIATE")
            damaged = self._set_aside(db)
            self._replay(db, rewrite=rebuilt or damaged)
            self._fill_states(db)
            db.execute("COMMIT")
        except sqlite3.Error as exc:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if salvage.is_damage(exc):
                raise
            log.error("database not gone through", error=str(exc))

    def _set_aside(self, db: sqlite3.Connection) -> bool:
        """Whether anything was damaged."""
        damaged = self._repair_events(db)
        for table, (columns, read) in _READERS.items():
            _, bad = rows.sound(db.execute(f"SELECT rowid, {columns} FROM {table}"), read)
            self.aside.put(db, table, bad)
            damaged = damaged or bool(bad)
        return damaged

    def _repair_events(self, db: sqlite3.Connection) -> bool:
        """An event's text holds all of it: other columns are written anew, a damaged text is set aside."""
        found = db.execute("SELECT seq, id, machine, utc_s, event, crc FROM alarm_events ORDER BY seq")
        wrong: list[AlarmEvent] = []
        bad: list[int] = []
        for seq, *columns, text, check in found:
            try:
                event = rows.event((text, check))
            except ValueError:
                bad.append(seq)
                continue
            if columns != [event.id, event.machine, event.utc_s]:
                wrong.append(event)
        self.aside.put(db, "alarm_events", bad)
        for event in wrong:
            # Where the same event is there twice, the other row is the sound one.
            db.execute(
                "UPDATE OR REPLACE alarm_events SET id = ?, machine = ?, utc_s = ? WHERE event = ?",
                (event.id, event.machine, event.utc_s, msgspec.json.encode(event).decode()),
            )
            log.error("damaged alarm event repaired", alarm_event=event.id, machine=event.machine)
        return bool(bad)

    def _replay(self, db: sqlite3.Connection, rewrite: bool) -> None:
        """Bring back what the journal knows and the database has lost.

        `rewrite`: events and messages of the journal are written anew as a whole, so that they stay in order.
        """
        told = self.commits()
        if rewrite:
            for commit in told:
                db.executemany("DELETE FROM alarm_events WHERE id = ?", [(event.id,) for event in commit.events])
                db.execute("DELETE FROM outbox WHERE commit_id = ? AND commit_id != ''", (commit.id,))
        for commit in told:
            inserted = sum(commits.insert_event(db, event) for event in commit.events)
            if inserted:
                commits.insert_messages(db, [m for m in commit.messages if not m.retain], commit.id)
            before = _state(db, commit.machine)
            if before is None or (inserted and commit.state.sequence >= before.sequence):
                commits.set_state(db, commit.machine, commit.state)
                commits.insert_messages(db, [m for m in commit.messages if m.retain])

    def _fill_states(self, db: sqlite3.Connection) -> None:
        """A machine with events and without a state gets the one that its events tell."""
        missing = db.execute(
            "SELECT DISTINCT machine FROM alarm_events WHERE machine NOT IN (SELECT machine FROM alarm_states)"
        ).fetchall()
        for (machine,) in missing:
            commits.set_state(db, machine, commits.state_after(events_of(db, machine)))
            log.error("alarm state made again from the events", machine=machine)


def events_of(db: sqlite3.Connection, machine: str) -> list[AlarmEvent]:
    """All that can be read, in order. Raises sqlite3.Error."""
    found = db.execute("SELECT seq, event, crc FROM alarm_events WHERE machine = ? ORDER BY seq", (machine,))
    return rows.sound(found, rows.event)[0]


def _state(db: sqlite3.Connection, machine: str) -> AlarmState | None:
    found = db.execute("SELECT rowid, machine, state, crc FROM alarm_states WHERE machine = ?", (machine,))
    sound, _ = rows.sound(found, rows.state)
    return sound[0][1] if sound else None
