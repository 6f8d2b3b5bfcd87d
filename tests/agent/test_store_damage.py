"""A damaged database costs neither the daemon nor the alarm events that can still be read."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from asd_agent.errors import StoreError
from asd_agent.store import Message, Reader, Store, salvage
from store_cases import alarm_event, alarm_state, normal_window

EVENTS = 300


def fill(state_dir: Path) -> None:
    rng = np.random.default_rng(1)
    with Store(state_dir) as store:
        for i in range(EVENTS):
            message = Message(topic="t", payload=b"%d" % i)
            store.commit_events([alarm_event(f"e{i}")], alarm_state(), [message])
        for i in range(1500):
            store.add_score("m1", normal_window(i, rng))


def pages_of(path: Path, table: str) -> list[int]:
    """1-based numbers of the pages that hold nothing but this table."""
    with sqlite3.connect(path) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        size = db.execute("PRAGMA page_size").fetchone()[0]
    data = path.read_bytes()
    page = data[(root - 1) * size : root * size]
    assert page[0] == 5, "expected an interior page: more rows are needed"
    cells = int.from_bytes(page[3:5], "big")
    offsets = [int.from_bytes(page[12 + 2 * i : 14 + 2 * i], "big") for i in range(cells)]
    return [int.from_bytes(page[o : o + 4], "big") for o in offsets]


def overwrite(path: Path, page: int, size: int = 4096) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)


def test_events_around_the_damage_are_saved_and_the_rest_moved_aside(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "unsent.journal").unlink()
    leaves = pages_of(tmp_path / "agent.db", "alarm_events")
    overwrite(tmp_path / "agent.db", leaves[len(leaves) // 2])
    with Store(tmp_path) as store:
        saved = [event.id for event in store.events(limit=EVENTS)]
        assert EVENTS // 2 < len(saved) < EVENTS
        assert "e0" in saved
        assert f"e{EVENTS - 1}" in saved
        assert saved == sorted(saved, key=lambda e: int(e[1:]))
        assert store.states() == {"m1": alarm_state()}
        assert store.outbox.depth() == EVENTS  # that table is whole
        (finding,) = store.health().findings
        assert "damaged" in finding
        assert store.commit_events([alarm_event("new")], alarm_state())
    (aside,) = salvage.moved_aside(tmp_path / "agent.db")
    with Store(tmp_path) as store:  # said until somebody has looked after it
        assert str(aside) in store.health().findings[0]
    aside.unlink()
    with Store(tmp_path) as store:
        assert store.health().findings == ()


def test_no_unsent_event_is_lost_with_the_database(tmp_path: Path) -> None:
    fill(tmp_path)
    leaves = pages_of(tmp_path / "agent.db", "alarm_events")
    overwrite(tmp_path / "agent.db", leaves[len(leaves) // 2])
    with Store(tmp_path) as store:
        assert [event.id for event in store.events(limit=EVENTS)] == [f"e{i}" for i in range(EVENTS)]
        assert [int(item.message.payload) for item in store.outbox.pending(limit=EVENTS)] == list(range(EVENTS))


def test_a_file_that_is_no_database_is_moved_aside(tmp_path: Path) -> None:
    tmp_path.joinpath("agent.db").write_bytes(b"not a database " * 1000)
    with Store(tmp_path) as store:
        assert store.events() == []
        assert "damaged" in store.health().findings[0]
    (aside,) = tmp_path.glob("agent.db.damaged-*")
    assert aside.read_bytes().startswith(b"not a database")


TREES = (
    "machines", "score_tail", "score_tail_machine", "score_blocks", "score_blocks_machine", "alarm_events",
    "alarm_states", "outbox", "retained", "reserve", "sqlite_sequence", "sqlite_master",
)  # fmt: skip


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    fill(folder)
    return folder


@pytest.mark.parametrize("tree", TREES)
def test_a_damaged_root_page_is_told_at_the_start_and_costs_no_event(filled: Path, tmp_path: Path, tree: str) -> None:
    path = shutil.copytree(filled, tmp_path / "state") / "agent.db"
    with sqlite3.connect(path) as db:
        found = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (tree,)).fetchone()
    db.close()
    overwrite(path, found[0] if found else 1)
    with Store(tmp_path / "state") as store:
        assert len(store.events(limit=1000)) == EVENTS
        assert "damaged" in store.health().findings[0]
        store.add_score("m1", normal_window(1, np.random.default_rng(2)))
        store.flush()
        assert len(store.scores("m1")) == 1  # the others are in the file that was set aside
        assert store.commit_events([alarm_event("new")], alarm_state())


def test_damage_among_the_scores_is_mended_while_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    (root,) = (
        sqlite3.connect(tmp_path / "agent.db")
        .execute("SELECT rootpage FROM sqlite_master WHERE name = 'score_blocks'")
        .fetchone()
    )
    overwrite(tmp_path / "agent.db", root)
    monkeypatch.setattr("asd_agent.store.schema._PROBES", ())  # as where it lies deeper than the start looks
    rng = np.random.default_rng(2)
    with Store(tmp_path) as store:
        with pytest.raises(StoreError, match="restart the daemon"):
            store.scores("m1")
        for i in range(1500):  # enough for a block, which needs the damaged table
            store.add_score("m1", normal_window(i, rng))
        store.flush()
        assert len(store.events(limit=EVENTS)) == EVENTS
        assert store.outbox.depth() == EVENTS
        assert "damaged" in store.health().findings[0]
        assert store.commit_events([alarm_event("new")], alarm_state())
        assert store.scores("m1")
    assert len(Reader(tmp_path).events(limit=1000)) == EVENTS + 1
