"""Damage to the files of the store, by bytes, by pages and as a whole; nothing of what is unsent may be lost."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from asd_agent.store import Message, Store
from faults.outcomes import Outcome
from store_cases import alarm_event, alarm_state, normal_window

EVENTS = 30
TABLES = {
    "alarm_events": ("id", "machine", "utc_s", "event", "crc"),
    "alarm_states": ("machine", "state", "crc"),
    "outbox": ("topic", "payload", "retain", "crc", "commit_id"),
    "retained": ("topic", "payload", "crc"),
    "score_tail": ("machine", "utc_ms", "row"),
    "score_blocks": ("machine", "since_ms", "until_ms", "windows", "summary", "data"),
    "machines": ("name",),
}
VALUES = (b"\xff\xfe", b"", b"{", b"\0", b"7", None)
Damage = Callable[[Path, random.Random], None]


def _value(table: str) -> Damage:
    def damage(state_dir: Path, rng: random.Random) -> None:
        column = rng.choice(TABLES[table])
        with sqlite3.connect(state_dir / "agent.db") as db:
            db.text_factory = bytes
            rowid, value = rng.choice(db.execute(f"SELECT rowid, {column} FROM {table}").fetchall())
            data = bytearray(value if isinstance(value, bytes) else str(value).encode())
            new = rng.choice(VALUES)
            if data and rng.random() < 0.7:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                new = bytes(data)
            kind = rng.choice(("TEXT", "TEXT", "BLOB"))
            try:
                db.execute(f"UPDATE OR REPLACE {table} SET {column} = CAST(? AS {kind}) WHERE rowid = ?", (new, rowid))
            except sqlite3.IntegrityError:
                db.execute(f"UPDATE {table} SET {column} = CAST(x'ff' AS {kind}) WHERE rowid = ?", (rowid,))

    return damage


def _bits(name: str) -> Damage:
    def damage(state_dir: Path, rng: random.Random) -> None:
        data = bytearray((state_dir / name).read_bytes())
        for _ in range(rng.randrange(1, 100)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (state_dir / name).write_bytes(data)

    return damage


def _page(name: str) -> Damage:
    def damage(state_dir: Path, rng: random.Random) -> None:
        data = bytearray((state_dir / name).read_bytes())
        at = rng.randrange(len(data)) & ~4095
        data[at : at + 4096] = rng.choice((b"\0", b"\xff")) * len(data[at : at + 4096])
        (state_dir / name).write_bytes(data)

    return damage


def _cut(name: str) -> Damage:
    def damage(state_dir: Path, rng: random.Random) -> None:
        with (state_dir / name).open("r+b") as file:
            file.truncate(rng.randrange((state_dir / name).stat().st_size))

    return damage


def _gone(*names: str) -> Damage:
    def damage(state_dir: Path, rng: random.Random) -> None:
        for name in names:
            (state_dir / name).unlink(missing_ok=True)

    return damage


def _replaced(state_dir: Path, rng: random.Random) -> None:
    size = (state_dir / "agent.db").stat().st_size
    (state_dir / "agent.db").write_bytes(rng.choice((b"\0" * size, rng.randbytes(size), b"text " * 500)))


DAMAGES: dict[str, Damage] = {
    **{f"damage: a value in {table}": _value(table) for table in TABLES},
    **{f"damage: bits of {name}": _bits(name) for name in ("agent.db", "agent.db-wal", "unsent.journal")},
    **{f"damage: a page of {name}": _page(name) for name in ("agent.db", "agent.db-wal")},
    **{f"damage: {name} is cut": _cut(name) for name in ("agent.db", "agent.db-wal", "unsent.journal")},
    "damage: the database is gone": _gone("agent.db", "agent.db-wal", "agent.db-shm"),
    "damage: the log is gone": _gone("agent.db-wal", "agent.db-shm"),
    "damage: the journal is gone": _gone("unsent.journal"),
    "damage: the database holds something else": _replaced,
}


class DamageLane:
    kinds = tuple(DAMAGES)

    def __init__(self, folder: Path, name: str, rng: random.Random) -> None:
        self._rng, self._folder = rng, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._plain, self._with_log = folder / "plain", folder / "with-log"
        windows = np.random.default_rng(rng.getrandbits(32))
        store = Store(self._plain)
        for i in range(EVENTS):
            event = alarm_event(f"e{i}", machine=f"m{i % 3}")
            messages = [
                Message(topic=f"asd/a/{event.machine}/event", payload=b'{"id":"e%d"}' % i),
                Message(topic=f"asd/a/{event.machine}/alarm", payload=b'{"of":"e%d"}' % i, retain=True),
            ]
            store.commit_events([event], alarm_state(sequence=i // 3 + 1, comment=event.id), messages)
        for i in range(800):
            store.add_score("m0", normal_window(i, windows))
        store.flush()
        shutil.copytree(self._plain, self._with_log)  # as a power cut leaves it
        store.close()

    def inject(self, kind: str) -> Outcome:
        state_dir = self._folder / "state"
        shutil.copytree(self._with_log if "wal" in kind or "log" in kind else self._plain, state_dir)
        DAMAGES[kind](state_dir, self._rng)
        began_s = time.monotonic()
        wanted = {f"e{i}" for i in range(EVENTS)}
        with Store(state_dir) as store:
            found = [event.id for event in store.events(limit=1000)]
            sent = {item.message.payload for item in store.outbox.pending(limit=1000)}
            states = store.states()
            able = store.commit_events([alarm_event("new", machine="m9")], alarm_state(sequence=1))
            took_s = time.monotonic() - began_s
        unsent = {e for e in wanted if b'{"id":"%s"}' % e.encode() not in sent}
        wrong = [m for m in ("m0", "m1", "m2") if m not in states or states[m].sequence != EVENTS // 3]
        outcome = Outcome(
            kind, events=EVENTS, lost=len((wanted - set(found)) | unsent), conflicts=len(found) - len(set(found)),
            wrong_states=len(wrong), recovery_s=took_s, stuck=not able,
        )  # fmt: skip
        shutil.rmtree(state_dir, ignore_errors=True)
        return outcome

    def resources(self) -> None:
        """In this process."""

    def close(self) -> list[str]:
        return []
