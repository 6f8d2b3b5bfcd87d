"""The store keeps what it has promised to keep, and says in one line what hinders it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from asd_agent.errors import StoreError
from asd_agent.store import Message, Reader, Store, schema
from asd_agent.types import EventKind, Level
from store_cases import UTC_S, alarm_event, alarm_state


def test_an_event_its_state_and_its_messages_survive_a_restart(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        event, state = alarm_event("e1"), alarm_state()
        sent = [Message(topic="t/event", payload=b"{}"), Message(topic="t/alarm", payload=b"[]", retain=True)]
        assert store.commit_events([event], state, sent)
    with Store(tmp_path) as store:
        assert store.events() == [event]
        assert store.states() == {"m1": state}
        assert [item.message for item in store.outbox.pending()] == sent
        assert store.outbox.retained() == sent[1:]
        assert store.health().outbox == 2
        assert store.health().findings == ()


def test_an_event_counts_once(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for state in (alarm_state(), alarm_state(Level.NORMAL)):
            assert store.commit_events([alarm_event("e1")], state, [Message(topic="t", payload=b"x")])
        assert len(store.events()) == 1
        assert store.states()["m1"].level is Level.ALERT
        assert store.outbox.depth() == 1


def test_questions_about_events(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for i in range(10):
            event = alarm_event(f"e{i}", machine=f"m{i % 2}", utc_s=UTC_S + i, kind=EventKind.CLEARED)
            store.commit_events([event], alarm_state())
        assert [e.id for e in store.events()] == [f"e{i}" for i in range(10)]
        assert [e.id for e in store.events(limit=3)] == ["e7", "e8", "e9"]
        assert [e.id for e in store.events(machine="m1", limit=2)] == ["e7", "e9"]
        assert [e.id for e in store.events(since_utc_s=UTC_S + 8)] == ["e8", "e9"]
        assert store.events(machine="unknown") == []


def test_a_state_without_an_event(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.set_state("m1", alarm_state(Level.DANGER), [Message(topic="t", payload=b"x", retain=True)])
        assert store.states()["m1"].level is Level.DANGER
        assert store.outbox.depth() == 1


def test_a_reader_needs_no_lock_and_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"agent\.db: no database yet"):
        Reader(tmp_path).events()
    with Store(tmp_path) as store, Store.reader(tmp_path) as reader:
        store.commit_events([alarm_event("e1")], alarm_state())
        assert reader.events() == store.events()
    assert len(Reader(tmp_path).events()) == 1


def test_a_second_daemon_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from asd_agent.store import Store;"
        "Store(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreError) as caught:
            Store(tmp_path)
        assert f"in use by another asd-agent (pid {holder.pid})" in str(caught.value)
        assert "\n" not in str(caught.value)
        holder.kill()
        holder.wait()
        Store(tmp_path).close()  # the lock died with its process
    finally:
        holder.kill()
        holder.communicate()


def test_the_lock_holds_within_one_process_too(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(StoreError, match=f"pid {os.getpid()}"):
        Store(tmp_path)
    Store(tmp_path).close()


@pytest.mark.parametrize("kind", ["under a file", "not writable"])
def test_a_directory_that_cannot_be_written(tmp_path: Path, kind: str) -> None:
    state_dir = tmp_path / "state"
    if kind == "under a file":
        state_dir.touch()
    else:
        state_dir.mkdir(mode=0o500)
        if os.access(state_dir, os.W_OK):  # root may write everywhere, but here
            state_dir = Path("/proc/asd-agent")
    with pytest.raises(StoreError, match=r"the state directory cannot be written .*set agent\.state_dir"):
        Store(state_dir)


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "agent.db") as db:
        db.execute(f"PRAGMA user_version={len(schema.MIGRATIONS) + 1}")
    before = (tmp_path / "agent.db").read_bytes()
    with pytest.raises(StoreError, match="written by a newer asd-agent"):
        Store(tmp_path)
    assert (tmp_path / "agent.db").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir() if "damaged" in p.name) == []


def test_an_older_database_is_migrated_with_all_that_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(tmp_path) as store:
        store.commit_events([alarm_event("e1")], alarm_state())
    newer = (*schema.MIGRATIONS, ("ALTER TABLE alarm_events ADD COLUMN note TEXT NOT NULL DEFAULT 'none'",))
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    with Store(tmp_path) as store:
        assert len(store.events()) == 1
    with sqlite3.connect(tmp_path / "agent.db") as db:
        assert db.execute("SELECT id, note FROM alarm_events").fetchall() == [("e1", "none")]
        assert db.execute("PRAGMA user_version").fetchone() == (len(newer),)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("DROP TABLE machines", "DROP TABLE nonsense")))
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path)
    monkeypatch.undo()
    Store(tmp_path).close()


def test_events_are_committed_with_full_and_scores_with_normal(tmp_path: Path) -> None:
    seen = {}
    with Store(tmp_path) as store:
        for durable in (True, False):
            seen[durable] = store._database.write(
                lambda db: db.execute("PRAGMA synchronous").fetchone()[0], durable=durable
            )
        assert store._database.read("PRAGMA journal_mode") == [("wal",)]
    assert seen == {True: 2, False: 1}
