"""Scores: small on disk, the same when they are read again, and forgotten by age."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asd_agent.store import History, Reader, ScoreRow, Store, history, rounding, scoreblock, scores
from asd_agent.types import Cause, Level, State
from store_cases import UTC_S, normal_window

DAY_S = 86_400.0

p_values = st.none() | st.floats(1e-300, 1.0)
distances = st.none() | st.floats(0, 1e6)
rows = st.builds(
    ScoreRow,
    utc_s=st.floats(0, 4e9),
    index=st.integers(0, 10**9),
    state=st.sampled_from(State),
    level=st.sampled_from(Level),
    quality=st.sampled_from([(), ("gap",), ("nan", "silence")]),
    level_dbfs=st.floats(-200, 6) | st.just(-math.inf),
    p_value=p_values,
    embedding_distance=distances,
    embedding_p=p_values,
    mechanism_p=p_values,
    detectors=st.dictionaries(
        st.sampled_from(["a", "b", "mechanism"]),
        st.tuples(st.floats(0, 1e6), st.floats(-50, 50), st.floats(1e-300, 1.0)),
    ),
    baseline=st.sampled_from(["", "v1", "v2"]),
    reason=st.text(max_size=20),
    operating=st.sampled_from(["", "idle", "off"]),
    nuisance=st.sampled_from(["", "Dog (z 7)"]),
    transient_p=p_values,
    transient_at_s=st.none() | st.floats(0, 60),
    cause=st.sampled_from(["", *Cause]),
)


def near(found: float | None, wanted: float | None, rel: float, smallest: float = 0.0) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return math.isclose(found, wanted, rel_tol=rel, abs_tol=smallest)


@given(st.lists(rows, max_size=20))
def test_a_block_gives_back_what_went_in_within_its_rounding(given_rows: list[ScoreRow]) -> None:
    found = scoreblock.decode(scoreblock.encode(given_rows))
    assert len(found) == len(given_rows)
    for a, b in zip(given_rows, found, strict=True):
        assert b.utc_s == pytest.approx(a.utc_s, abs=0.0006)
        for name in (
            "index",
            "state",
            "level",
            "quality",
            "baseline",
            "reason",
            "operating",
            "nuisance",
            "cause",
        ):
            assert getattr(a, name) == getattr(b, name)
        assert (b.transient_at_s is None) == (a.transient_at_s is None)
        assert b.transient_at_s is None or b.transient_at_s == pytest.approx(a.transient_at_s, abs=0.0006)
        for name in ("p_value", "embedding_p", "mechanism_p", "transient_p"):
            assert near(getattr(b, name), getattr(a, name), rel=0.012)
        assert near(b.embedding_distance, a.embedding_distance, rel=0.006, smallest=scoreblock.SMALLEST_DISTANCE)
        assert b.detectors.keys() == a.detectors.keys()
        for name, (distance, z, p) in a.detectors.items():
            assert b.detectors[name][0] == pytest.approx(distance, rel=0.006)
            assert b.detectors[name][1] == pytest.approx(z, abs=0.051)
            assert b.detectors[name][2] == pytest.approx(p, rel=0.012)
    assert scoreblock.encode(found) == scoreblock.encode(scoreblock.decode(scoreblock.encode(found)))


COLUMNS = [name for name in History.__dataclass_fields__ if name not in ("words", "z")]


@given(st.lists(rows, max_size=20))
def test_the_history_of_a_block_is_that_of_its_rows(given_rows: list[ScoreRow]) -> None:
    data = scoreblock.encode(given_rows)
    size = scoreblock.history_bytes(data[: scoreblock.HEAD_BYTES])
    found = history.unpack(data[scoreblock.HEAD_BYTES : scoreblock.HEAD_BYTES + size])
    for wanted in (History.of(given_rows), History.of(scoreblock.decode(data))):
        assert found.words == wanted.words
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), name)
        assert {k: v.tolist() for k, v in found.z.items()} == {k: v.tolist() for k, v in wanted.z.items()}


@given(st.floats(0, 1))
def test_what_is_decided_on_is_kept_bit_for_bit(p: float) -> None:
    kept = rounding.kept_p(p)
    row = ScoreRow(utc_s=1.0, index=1, state=State.NORMAL, p_value=kept, transient_p=kept)
    (found,) = scoreblock.decode(scoreblock.encode([row]))
    assert (found.p_value, found.transient_p) == (kept, kept)
    assert kept == pytest.approx(max(p, 1e-300), rel=0.012)


def test_the_history_comes_in_the_order_of_the_windows(tmp_path: Path) -> None:
    """Also over several blocks, a restart and a clock that was set back; by time as far as it is asked for."""
    rng = np.random.default_rng(1)
    count = 2 * scores.BLOCK_WINDOWS + 100
    with Store(tmp_path) as store:
        for offset_s in (0.0, -7200.0):
            for i in range(count):
                store.add_score("m1", normal_window(i, rng, utc_s=UTC_S + offset_s), "v7")
        past = History.joined(list(store.history("m1")))
        assert past.index.tolist() == [*range(count), *range(count)]
        assert past.utc_s[0] > past.utc_s[count]
        since = UTC_S + 5 * (count - 10)
        some = History.joined(list(store.history("m1", since)))
        assert some.index.tolist() == past.index[past.utc_s >= since].tolist() == list(range(count - 10, count))
        assert list(store.history("unknown")) == []


def test_a_damaged_block_is_a_clear_error() -> None:
    data = scoreblock.encode([ScoreRow(utc_s=1.0, index=1, state=State.NORMAL)])
    for bad in (b"", data[:3], data[:40], data[:-3], b"\0" * 20, b"\x78" * 20):
        with pytest.raises(ValueError, match="damaged block"):
            scoreblock.decode(bad)


def test_windows_come_back_in_order_across_blocks_and_tail(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    count = 2 * scores.BLOCK_WINDOWS + 100
    with Store(tmp_path) as store:
        for i in range(count):
            for machine in ("m1", "m2"):
                store.add_score(machine, normal_window(i, rng), "v7")
        found = store.scores("m1")  # also what has only been gathered
        assert [row.index for row in found] == list(range(count))
        assert {row.baseline for row in found} == {"v7"}
        assert [row.index for row in store.scores("m1", limit=3)] == [count - 3, count - 2, count - 1]
        since, until = UTC_S + 5 * 700 - 1, UTC_S + 5 * 730 + 1
        assert [row.index for row in store.scores("m1", since, until)] == list(range(700, 731))
        assert store.scores("unknown") == []
        (blocks,) = store._database.read("SELECT count(*), sum(windows) FROM score_blocks")
        assert blocks == (4, 4 * scores.BLOCK_WINDOWS)
    assert len(Reader(tmp_path).scores("m2")) == count


def test_a_clock_that_was_set_back_hides_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    with Store(tmp_path) as store:
        for start, offset_s in ((0, 0.0), (scores.BLOCK_WINDOWS // 2, -7200.0)):
            for i in range(start, start + scores.BLOCK_WINDOWS // 2 + 5):
                store.add_score("m1", normal_window(i, rng, utc_s=UTC_S + offset_s))
        assert len(store.scores("m1")) == 2 * (scores.BLOCK_WINDOWS // 2 + 5)
        assert len(store.scores("m1", since_utc_s=UTC_S - 1)) >= scores.BLOCK_WINDOWS // 2 + 5


def test_scores_expire_by_age_and_events_do_not(tmp_path: Path) -> None:
    from store_cases import alarm_event, alarm_state

    rng = np.random.default_rng(1)
    with Store(tmp_path, score_days=10) as store:
        store.commit_events([alarm_event("old", utc_s=UTC_S - 4000 * DAY_S)], alarm_state())
        for day in (-40, -20, -5):
            for i in range(scores.BLOCK_WINDOWS):
                store.add_score("m1", normal_window(i, rng, utc_s=UTC_S + day * DAY_S))
        store.add_score("m1", normal_window(0, rng, utc_s=UTC_S - 30 * DAY_S))
        store.flush()
        store.maintain(now_utc_s=UTC_S)
        left = store.scores("m1")
        assert len(left) == scores.BLOCK_WINDOWS
        assert min(row.utc_s for row in left) >= UTC_S - 5 * DAY_S
        assert [event.id for event in store.events()] == ["old"]


def test_a_wrong_clock_cannot_empty_the_table_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    with Store(tmp_path) as store:
        row = ScoreRow.of(normal_window(0, rng), "")
        data = scoreblock.encode([row])
        many = 3 * scores.EXPIRE_BLOCKS
        store.add_score("m1", normal_window(0, rng, utc_s=UTC_S))
        store.flush()
        insert = "INSERT INTO score_blocks (machine, since_ms, until_ms, windows, data) VALUES (1, ?, ?, 1, ?)"
        store._database.write(lambda db: db.executemany(insert, [(i, i, data) for i in range(many)]), durable=False)
        store.maintain(now_utc_s=UTC_S + 20_000 * DAY_S)
        ((left,),) = store._database.read("SELECT count(*) FROM score_blocks")
        assert left == many - scores.EXPIRE_BLOCKS


def test_a_year_of_eight_machines_stays_below_two_gigabytes(tmp_path: Path) -> None:
    """Five detectors with random numbers, the hardest to compress; measured by what one more day adds."""
    rng = np.random.default_rng(1)
    sizes = []
    day = 24 * scores.BLOCK_WINDOWS
    for first in (0, day):
        with Store(tmp_path) as store:
            for index in range(first, first + day):
                store.add_score("m1", normal_window(index, rng), "20260327T120000Z-1a2b3c")
        sizes.append((tmp_path / "agent.db").stat().st_size)
    per_window = (sizes[1] - sizes[0]) / day
    year = 8 * 365.25 * DAY_S / 5
    print(f"{per_window:.1f} bytes per window, {per_window * year / 1e9:.2f} GB a year")
    assert per_window * year < 2e9


def test_rows_of_the_tail_are_plain_json(tmp_path: Path) -> None:
    """So that a newer schema, or a person, can read what has not been packed."""
    rng = np.random.default_rng(1)
    with Store(tmp_path) as store:
        store.add_score("m1", normal_window(0, rng))
        store.flush()
        ((text,),) = store._database.read("SELECT row FROM score_tail")
    assert msgspec.json.decode(text)["state"] == "normal"
