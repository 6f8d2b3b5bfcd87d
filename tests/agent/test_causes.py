"""The nearest recorded cause: only marks with words count, the most alike wins, nothing alike is nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asd_agent.service.causes import nearest_cause, similarity
from asd_agent.store import Store
from asd_agent.types import DetectorScore, EventKind
from store_cases import UTC_S, alarm_event, alarm_state, normal_window

BEARING = {"log_mel": 9.0, "fine_spectrum": 1.0, "modulation": 12.0}
RAIN = {"log_mel": 8.0, "fine_spectrum": 9.0, "modulation": 0.5}
SCORES = st.dictionaries(st.sampled_from("abcde"), st.floats(-50, 50), max_size=5)


def scores(z: dict[str, float]) -> tuple[DetectorScore, ...]:
    return tuple(DetectorScore(name, 1.0, value, 0.5) for name, value in z.items())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as opened:
        yield opened


def record(store: Store, alarm_id: str, hour: int, z: dict[str, float], *marks: tuple[EventKind, str]) -> None:
    """An alarm whose deciding windows deviate like `z`, and what people said of it."""
    rng, utc_s = np.random.default_rng(hour), UTC_S + 3600 * hour
    for index in (3, 4, 5):
        window = normal_window(index, rng, utc_s=utc_s - 30)
        store.add_score("m1", replace(window, detectors=scores({k: v * rng.uniform(0.9, 1.1) for k, v in z.items()})))
    kinds = [(EventKind.RAISED, ""), *marks]
    for i, (kind, comment) in enumerate(kinds):
        event = alarm_event(f"{alarm_id}-{i}", alarm_id=alarm_id, kind=kind, comment=comment, utc_s=utc_s + i)
        store.commit_events([event], alarm_state(), [])


def test_the_cause_of_the_alarm_that_deviated_alike(store: Store) -> None:
    record(store, "a1", 1, BEARING, (EventKind.MARKED_FAULT, "outer race of DE, replaced"))
    record(store, "a2", 2, RAIN, (EventKind.MARKED_NOTHING, "rain on the roof"))
    found = nearest_cause(store, "m1", scores({k: 2 * v for k, v in BEARING.items()}))
    assert found is not None
    assert (found.alarm_id, found.cause, found.fault) == ("a1", "outer race of DE, replaced", True)
    assert found.similarity > 0.98
    rain = nearest_cause(store, "m1", scores(RAIN))
    assert rain is not None
    assert (rain.cause, rain.fault) == ("rain on the roof", False)


def test_nothing_alike_nothing_marked_nothing_of_another_machine(store: Store) -> None:
    record(store, "a1", 1, BEARING)  # nobody said anything
    record(store, "a2", 2, BEARING, (EventKind.MARKED_FAULT, ""))
    assert nearest_cause(store, "m1", scores(BEARING)) is None
    record(store, "a3", 3, BEARING, (EventKind.MARKED_FAULT, "first thought"), (EventKind.MARKED_FAULT, "bearing"))
    found = nearest_cause(store, "m1", scores(BEARING))
    assert found is not None
    assert found.cause == "bearing"  # the last word counts
    assert nearest_cause(store, "m1", scores({"log_mel": -9.0, "fine_spectrum": 3.0, "modulation": 0.1})) is None
    assert nearest_cause(store, "m1", scores({"modulation": 12.0})) is None  # one detector is no comparison
    assert nearest_cause(store, "m2", scores(BEARING)) is None


@given(SCORES, SCORES, st.floats(0.1, 10))
def test_similarity_is_a_cosine(one: dict[str, float], other: dict[str, float], factor: float) -> None:
    value = similarity(one, other)
    assert -1.0001 <= value <= 1.0001
    assert value == pytest.approx(similarity(other, one))
    assert similarity({k: factor * v for k, v in one.items()}, other) == pytest.approx(value, abs=1e-6)
