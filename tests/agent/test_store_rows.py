"""Bytes that change inside a stored row cost that row at most; unsent alarm events are in a journal as well."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from asd_agent.errors import StoreError
from asd_agent.store import Message, Reader, Store
from asd_agent.store.commits import state_after
from asd_agent.store.journal import Journal
from asd_agent.types import EventKind, Level
from store_cases import alarm_event, alarm_state, normal_window

EVENTS = 12
WINDOWS = 800
COLUMNS = [
    *(("alarm_events", c) for c in ("id", "machine", "utc_s", "event", "crc")),
    *(("alarm_states", c) for c in ("machine", "state", "crc")),
    *(("outbox", c) for c in ("topic", "payload", "retain", "crc", "commit_id")),
    *(("retained", c) for c in ("topic", "payload", "crc")),
    *(("score_tail", c) for c in ("machine", "utc_ms", "row")),
    *(("score_blocks", c) for c in ("machine", "since_ms", "until_ms", "windows", "summary", "data")),
    ("machines", "name"),
]
DAMAGES = (b"\xff\xfe", b"", b"{", b"\0", b"7", None)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with unsent events, and with windows in a block and in the tail."""
    state_dir = tmp_path_factory.mktemp("filled")
    rng = np.random.default_rng(1)
    with Store(state_dir) as store:
        for i in range(EVENTS):
            event = alarm_event(f"e{i}", machine=f"m{i % 2}")
            messages = [
                Message(topic=f"asd/{event.machine}/event", payload=b'{"id":"e%d"}' % i),
                Message(topic=f"asd/{event.machine}/alarm", payload=b'{"of":"e%d"}' % i, retain=True),
            ]
            store.commit_events([event], alarm_state(sequence=i // 2 + 1), messages)
        for i in range(WINDOWS):
            store.add_score("m0", normal_window(i, rng))
    return state_dir


def copied(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "state"))


def flip(state_dir: Path, table: str, column: str, rng: random.Random) -> None:
    """Change one stored value: its bits, its length, or its kind."""
    with sqlite3.connect(state_dir / "agent.db") as db:
        db.text_factory = bytes
        rowid, value = rng.choice(db.execute(f"SELECT rowid, {column} FROM {table}").fetchall())
        data = bytearray(value if isinstance(value, bytes) else str(value).encode())
        if data and rng.random() < 0.6:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            damaged: bytes | None = bytes(data)
        else:
            damaged = rng.choice(DAMAGES)
        kind = "TEXT" if rng.random() < 0.7 else "BLOB"
        try:
            db.execute(f"UPDATE OR REPLACE {table} SET {column} = CAST(? AS {kind}) WHERE rowid = ?", (damaged, rowid))
        except sqlite3.IntegrityError:  # NOT NULL: SQLite's own check finds it
            db.execute(f"UPDATE {table} SET {column} = CAST(x'ff' AS {kind}) WHERE rowid = ?", (rowid,))


@pytest.mark.parametrize(("table", "column"), COLUMNS)
@pytest.mark.parametrize("seed", range(2))
def test_a_damaged_value_stops_nothing(filled: Path, tmp_path: Path, table: str, column: str, seed: int) -> None:
    state_dir = copied(filled, tmp_path)
    flip(state_dir, table, column, random.Random(f"{table} {column} {seed}"))
    reader = Reader(state_dir)  # a command beside the daemon
    reader.events()
    reader.states()
    reader.scores("m0")
    list(reader.history("m0"))
    reader.summaries("m0")
    with Store(state_dir) as store:
        assert sorted(event.id for event in store.events()) == sorted(f"e{i}" for i in range(EVENTS))
        assert {m: s.sequence for m, s in store.states().items() if m in ("m0", "m1")} == {"m0": 6, "m1": 6}
        sent = [item.message.payload for item in store.outbox.pending(limit=1000)]
        assert {b'{"id":"e%d"}' % i for i in range(EVENTS)} <= set(sent)
        assert len(store.outbox.retained()) >= (2 if table != "retained" else 1)
        least = {"score_blocks": 80, "score_tail": 790, "machines": 0}.get(table, WINDOWS)
        assert least <= len(store.scores("m0")) <= WINDOWS
        rng = np.random.default_rng(2)
        for i in range(700 if table == "score_tail" else 5):  # enough for the next block
            store.add_score("m0", normal_window(WINDOWS + i, rng))
        store.flush()
        assert store.health().scores_dropped == 0
        assert store.commit_events([alarm_event("new")], alarm_state(sequence=99), [Message(topic="t", payload=b"n")])
        assert store.outbox.pending(limit=1000)[-1].message.payload == b"n"


def test_damage_is_told_until_somebody_has_looked(filled: Path, tmp_path: Path) -> None:
    state_dir = copied(filled, tmp_path)
    with sqlite3.connect(state_dir / "agent.db") as db:
        db.execute("UPDATE outbox SET payload = x'00ff' WHERE seq = 1")
    with Store(state_dir) as store:
        (finding,) = store.health().findings
        assert "1 of outbox" in finding
    (found,) = Reader(state_dir).damage()
    assert str(state_dir / "damaged-rows.jsonl") in found
    (state_dir / "damaged-rows.jsonl").unlink()
    with Store(state_dir) as store:
        assert store.health().findings == ()


def test_a_message_that_is_damaged_while_running_holds_up_nothing(filled: Path, tmp_path: Path) -> None:
    state_dir = copied(filled, tmp_path)
    with Store(state_dir) as store:
        before = [item.message for item in store.outbox.pending(limit=1000)]
        store._database.write(
            lambda db: db.execute("UPDATE outbox SET topic = CAST(x'ff' AS TEXT) WHERE seq = 3"), durable=True
        )
        after = [item.message for item in store.outbox.pending(limit=1000)]
        assert {m.payload for m in after} == {m.payload for m in before}  # from the journal


@pytest.mark.parametrize("how", ["gone", "zeroed", "cut", "text"])
def test_a_database_that_is_gone_takes_no_unsent_event_with_it(filled: Path, tmp_path: Path, how: str) -> None:
    state_dir = copied(filled, tmp_path)
    path = state_dir / "agent.db"
    size = path.stat().st_size
    if how == "gone":
        for file in state_dir.glob("agent.db*"):
            file.unlink()
    elif how == "zeroed":
        path.write_bytes(b"\0" * size)
    elif how == "cut":
        with path.open("r+b") as file:
            file.truncate(size // 3)
    else:
        path.write_bytes(b"not a database " * 1000)
    with Store(state_dir) as store:
        assert [event.id for event in store.events()] == [f"e{i}" for i in range(EVENTS)]
        sent = [i.message.payload for i in store.outbox.pending(limit=1000) if not i.message.retain]
        assert sent == [b'{"id":"e%d"}' % i for i in range(EVENTS)]
        assert {m: s.sequence for m, s in store.states().items()} == {"m0": 6, "m1": 6}
        assert {m.payload for m in store.outbox.retained()} == {b'{"of":"e10"}', b'{"of":"e11"}'}


def test_random_damage_to_the_files_stops_nothing(filled: Path, tmp_path: Path) -> None:
    """Bytes and pages of database and log; whatever is left of them, no unsent event is lost."""
    rng = random.Random(20261121)
    for case in range(16):
        state_dir = copied(filled, tmp_path)
        writer = Store(state_dir)  # leaves a log behind, as a power cut does
        writer.commit_events([alarm_event("last")], alarm_state(sequence=7), [Message(topic="t", payload=b"last")])
        torn = tmp_path / "torn"
        shutil.copytree(state_dir, torn)
        writer.close()
        for name in rng.choice((("agent.db",), ("agent.db-wal",), ("agent.db", "agent.db-wal"))):
            damage(torn / name, rng)
        with Store(torn) as store:
            ids = [event.id for event in store.events(limit=1000)]
            assert sorted(ids) == sorted([*(f"e{i}" for i in range(EVENTS)), "last"]), case
            with suppress(StoreError):  # the root of the scores may be what is damaged
                store.scores("m0")
            assert b"last" in [item.message.payload for item in store.outbox.pending(limit=1000)]
            assert store.commit_events([alarm_event("next")], alarm_state(sequence=8))
        shutil.rmtree(torn)
        shutil.rmtree(state_dir)


def damage(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data)) & ~4095
    match rng.choice(("bytes", "zero", "cut")):
        case "bytes":
            for _ in range(rng.randint(1, 200)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "zero":
            data[at : at + 4096] = b"\0" * len(data[at : at + 4096])
        case "cut":
            del data[at:]
    path.write_bytes(data)


def test_the_journal_lets_go_of_what_has_been_acknowledged(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for i in range(20):
            messages = [Message(topic="t", payload=b"%d" % i)]
            store.commit_events([alarm_event(f"e{i}")], alarm_state(sequence=i + 1), messages)
        full = Journal(tmp_path / "unsent.journal").size
        store.outbox.delete([item.seq for item in store.outbox.pending(limit=15)])
        store.maintain()
        assert 0 < Journal(tmp_path / "unsent.journal").size < full / 2
        store.outbox.delete([item.seq for item in store.outbox.pending(limit=15)])
        store.maintain()
    for file in tmp_path.glob("agent.db*"):
        file.unlink()
    with Store(tmp_path) as store:
        assert store.events() == []  # the broker has them
        assert store.outbox.depth() == 0
        assert store.states()["m1"].sequence == 20  # the newest state stays


def test_an_acknowledgement_for_the_old_database_deletes_nothing_of_the_new_one(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for i in range(5):
            store.commit_events([alarm_event(f"e{i}")], alarm_state(), [Message(topic="t", payload=b"%d" % i)])
        under_way = [item.seq for item in store.outbox.pending()]
        (tmp_path / "agent.db").write_bytes(b"\0" * 20_000)
        (tmp_path / "agent.db-wal").write_bytes(b"")
        with store._database._lock:
            store._database._begin_anew()
        store.outbox.delete(under_way)
        assert [item.message.payload for item in store.outbox.pending()] == [b"%d" % i for i in range(5)]
        assert min(item.seq for item in store.outbox.pending()) > max(under_way)


@pytest.mark.parametrize("seed", range(30))
def test_a_journal_gives_back_its_sound_records(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    journal = Journal(tmp_path / "journal")
    records = [rng.randbytes(rng.randint(0, 300)) for _ in range(20)]
    for record in records:
        journal.append(record)
    assert journal.records() == records
    journal.close()
    path = tmp_path / "journal"
    data = bytearray(path.read_bytes())
    at = rng.randrange(journal.size)
    if rng.random() < 0.5:
        data[at] ^= 1 << rng.randrange(8)
        lost = 1
    else:
        del data[at:]
        lost = 20
    path.write_bytes(data)
    damaged = Journal(path)
    found = damaged.records()
    assert [r for r in records if r in found] == found
    assert len(found) >= 20 - lost
    damaged.append(b"new")
    assert Journal(path).records() == [*found, b"new"]
    journal.close()
    damaged.close()


def test_the_state_that_the_events_tell() -> None:
    kinds = [EventKind.RAISED, EventKind.ESCALATED, EventKind.SHELVED, EventKind.OUT_OF_SERVICE]
    events = [alarm_event(f"e{i}", kind=kind, until_utc_s=9e9) for i, kind in enumerate(kinds)]
    events[1] = alarm_event("e1", kind=EventKind.ESCALATED, level=Level.DANGER)
    state = state_after(events)
    assert (state.level, state.alarm_id, state.sequence) == (Level.DANGER, "alarm-1", 4)
    assert (state.shelved_until_utc_s, state.out_of_service) == (9e9, True)
    cleared = alarm_event("e5", kind=EventKind.CLEARED, level=Level.NORMAL)
    assert state_after([*events, cleared]).latched
    acknowledged = alarm_event("e6", kind=EventKind.ACKNOWLEDGED)
    assert state_after([*events, cleared, acknowledged]).level is Level.NORMAL
    assert state_after([*events, acknowledged, cleared]).level is Level.NORMAL
