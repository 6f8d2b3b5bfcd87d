"""A full disk: scores give way, alarm events get in, the daemon goes on and says so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from asd_agent.store import Message, Reader, Store, StoreHealth
from store_cases import alarm_event, alarm_state, normal_window

MB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip("may not mount a small file system here (needs root)")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def occupy(disk: Path) -> None:
    """Somebody else fills the disk to the last byte."""
    with (disk / "other").open("ab", buffering=0) as file:
        for size in (MB, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                pass
    assert os.statvfs(disk).f_bavail == 0


def commit(store: Store, name: str, reason: str = "hiss") -> bool:
    event = alarm_event(name, reason=reason)
    return store.commit_events([event], alarm_state(), [Message(topic="t", payload=name.encode())])


def test_events_get_in_when_somebody_fills_the_disk(small_disk: Path) -> None:
    state_dir = small_disk / "state"
    rng = np.random.default_rng(1)
    with Store(state_dir) as store:
        for i in range(500):
            store.add_score("m1", normal_window(i, rng))
        store.flush()
        occupy(small_disk)
        assert all(commit(store, f"e{i}") for i in range(200))
        occupy(small_disk)  # what the ballast gave back is taken too
        for i in range(2000):
            store.add_score("m1", normal_window(i, rng))
        store.flush()
        assert all(commit(store, f"f{i}") for i in range(200))
        health = store.health()
        assert any("disk" in finding for finding in health.findings)
        store.outbox.delete([item.seq for item in store.outbox.pending(limit=100)])
        assert store.outbox.depth() == 300

        (small_disk / "other").unlink()
        store._next_tidy_s = 0.0
        store.maintain()
        store.add_score("m1", normal_window(1, rng))
        store.flush()
        assert store.health().findings == ()
        assert not store.health().disk_full
        assert store.outbox.depth() == 300
    assert len(Reader(state_dir).events(limit=1000)) == 400


def test_events_wait_in_memory_when_there_is_no_room_at_all(small_disk: Path) -> None:
    state_dir = small_disk / "state"
    with Store(state_dir) as store:
        commit(store, "e0")
        store._database.space.release_ballast()
        with store._database._lock:
            store._database._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        occupy(small_disk)
        assert not commit(store, "e1")
        assert not commit(store, "e2")
        health = store.health()
        assert (health.events_waiting, health.disk_full) == (2, True)
        assert any("2 alarm events wait" in finding for finding in health.findings)
        assert [item.message.payload for item in store.outbox.pending()] == [b"e0"]  # not sent before committed
        (small_disk / "other").unlink()
        store.maintain()
        assert store.health().events_waiting == 0
        assert [item.message.payload for item in store.outbox.pending()] == [b"e0", b"e1", b"e2"]
    assert [event.id for event in Reader(state_dir).events()] == ["e0", "e1", "e2"]


def limit_pages(store: Store, more: int) -> None:
    """As if the disk had room for this many more pages of the database."""
    with store._database._lock:
        (pages,) = store._database._db.execute("PRAGMA page_count").fetchone()
        store._database._db.execute(f"PRAGMA max_page_count={pages + more}")


def test_old_scores_make_room_for_new_ones_and_for_events(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    history = 400
    with Store(tmp_path) as store:
        for i in range(720):
            store.add_score("m1", normal_window(i, rng))
        store.flush()
        columns = "machine, since_ms, until_ms, windows, data"
        copies = f"INSERT INTO score_blocks ({columns}) SELECT {columns} FROM score_blocks LIMIT 1"
        store._database.write(lambda db: [db.execute(copies) for _ in range(history - 1)], durable=False)
        limit_pages(store, 2)
        assert all(commit(store, f"e{i}", reason="hiss " * 800) for i in range(300))
        for i in range(720, 4 * 720):
            store.add_score("m1", normal_window(i, rng))
        store.flush()
        assert store.scores("m1", limit=3 * 720)[0].index == 720  # nothing new was dropped
        assert store.health().scores_dropped == 0
        ((left,),) = store._database.read("SELECT count(*) FROM score_blocks")
        assert history // 4 < left < history - 8  # and not more forgotten than needed
        assert len(store.events(limit=1000)) == 300


def test_scores_are_dropped_and_counted_while_nothing_can_be_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    with Store(tmp_path) as store:
        limit_pages(store, 0)
        for i in range(600):
            store.add_score("m1", normal_window(i, rng))
        store.flush()
        health = store.health()
        assert health.scores_dropped > 0
        assert health.disk_full
        assert any("scores are not being kept" in finding for finding in health.findings)
        limit_pages(store, 10_000)
        store.add_score("m1", normal_window(601, rng))
        store.flush()
        assert store.scores("m1")[-1].index == 601
        assert not store.health().disk_full
        assert isinstance(store.health(), StoreHealth)
