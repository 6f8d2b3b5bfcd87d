"""Leaving out windows changes nothing: the screened replay against every single window, and against lanes and alarm."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent import config
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.fusion import Spread
from asd_agent.decide.persistence import Steadiness
from asd_agent.store import History
from asd_agent.store.history import NONE, STATES
from asd_agent.types import AlarmEvent, EventKind, Level, State
from asd_agent.whatif import Replay, episodes

LIMITS = Thresholds(alert_p=1e-3, danger_p=1e-6, alert_clear_p=1e-2, danger_clear_p=1e-5)
CODES = {"calm": 30, "band": 250, "alert": 350, "near danger": 540, "danger": 700}  # -100 log10 p
UTC_S = 1.7e9
DETECTORS = ("spectrum", "modulation")
STEADINESS = Steadiness(
    detectors=list(DETECTORS), centre=[0.0] * 2, high=[0.0] * 2, day=[0.7] * 2, block=[0.3] * 2, high_block=[0.5] * 2
)
SPREAD = Spread(within=1.0, between=1.0, windows=60, blocks=6, sessions=2)


def machine(window_s: float = 10.0, hop_s: float = 5.0, window_votes: str = "3/5", **alarm: Any) -> config.Machine:
    alarm["window_votes"] = window_votes
    return config.Machine(
        id="m", source=config.SimulatedSource(), window_s=window_s, hop_s=hop_s, alarm=config.Alarm(**alarm)
    )


def manifest(version: str) -> Any:
    """Of a baseline whose thresholds do not follow from a budget."""
    return SimpleNamespace(
        thresholds=lambda machine: LIMITS,
        states=[
            SimpleNamespace(
                name="idle", transients_per_hour=0.0, fusion=SimpleNamespace(spread=SPREAD), steadiness=STEADINESS
            )
        ],
        report=SimpleNamespace(seconds=36_000.0, windows=7200, excluded={}),
    )


def history(rows: list[dict[str, Any]], hop_s: float = 5.0, first: int = 0) -> History:
    """Rows name what is not normal about them."""
    n = len(rows)
    words = ("v1", "", "idle", "loaded", "off", "Dog (z 7)", "v2", "not_running", "state_changing")

    def column(name: str, default: Any) -> np.ndarray:
        return np.array([row.get(name, default) for row in rows])

    def word(name: str, default: str) -> np.ndarray:
        return np.array([words.index(row.get(name, default)) for row in rows])

    return History(
        utc_s=UTC_S + np.round(hop_s * np.cumsum(column("wait", 1.0)), 3),
        index=np.arange(first, first + n) - np.maximum.accumulate(column("restart", 0) * np.arange(first, first + n)),
        state=np.array([STATES.index(row.get("state", State.NORMAL)) for row in rows]),
        p=column("p", CODES["calm"]),
        transient_p=column("transient_p", 30),
        transient_ms=column("transient_ms", 1000),
        cause=word("cause", ""),
        baseline=word("baseline", "v1"),
        operating=word("operating", "idle"),
        nuisance=word("nuisance", ""),
        words=words,
        z=dict.fromkeys(DETECTORS, column("z", 2)),
    )


def replayed(target: config.Machine, past: History, *, screened: bool, parts: int = 1, **more: Any) -> tuple[Any, ...]:
    """The events and the alarm at the end; the history in so many parts."""
    replay = Replay(target, more.pop("manifest", manifest), more.pop("commands", ()), screened=screened)
    edges = np.linspace(0, len(past), parts + 1).astype(int)
    events = [
        event
        for a, b in itertools.pairwise(edges)
        for event in replay.feed(_part(past, int(a), int(b)))
    ]  # fmt: skip
    return events + replay.finish(), replay


def _part(past: History, a: int, b: int) -> History:
    columns = {name: getattr(past, name)[a:b] for name in past.__dataclass_fields__ if name not in ("words", "z")}
    return History(words=past.words, z={name: z[a:b] for name, z in past.z.items()}, **columns)


KINDS: dict[str, dict[str, Any]] = {
    "calm": {},
    "loaded": {"operating": "loaded"},
    "weak": {"z": 30},
    "weak band": {"p": CODES["band"], "z": 25},
    "band": {"p": CODES["band"]},
    "alert": {"p": CODES["alert"]},
    "near danger": {"p": CODES["near danger"]},
    "danger": {"p": CODES["danger"]},
    "sudden": {"transient_p": 600},
    "sudden alert": {"transient_p": 600, "p": CODES["alert"]},
    "dog": {"p": CODES["alert"], "nuisance": "Dog (z 7)"},
    "calm dog": {"nuisance": "Dog (z 7)", "transient_p": 600},
    "off": {"state": State.OFF, "operating": "off"},
    "unlike off": {"state": State.OFF, "operating": "off", "p": CODES["alert"]},
    "quiet": {"state": State.OFF, "operating": "off", "p": CODES["danger"], "cause": "not_running"},
    "broken": {"state": State.NOT_ASSESSABLE, "p": NONE, "transient_p": NONE, "transient_ms": NONE, "operating": ""},
    "changing": {
        "state": State.NOT_ASSESSABLE,
        "p": NONE,
        "transient_p": NONE,
        "transient_ms": NONE,
        "operating": "",
        "cause": "state_changing",
    },
    "learning": {"state": State.LEARNING, "p": NONE, "baseline": "", "operating": ""},
    "other baseline": {"baseline": "v2"},
    "restart": {"restart": 1},
    "clock back": {"wait": -300.0},
    "clock on": {"wait": 900.0},
}
mixtures = st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=3)
shares = st.sampled_from([0.5, 0.2, 0.07])  # of what is not the first kind: votes that are far apart count too
segments = st.lists(st.tuples(mixtures, st.integers(1, 150), shares, st.integers(0, 2**16)), min_size=1, max_size=7)


def rows_of(parts: list[tuple[list[str], int, float, int]]) -> list[dict[str, Any]]:
    """Each part: windows of up to three kinds in a random order, the first of them most of the time."""
    rows = []
    for kinds, length, share, seed in parts:
        rng = np.random.default_rng(seed)
        other = rng.random(length) < share
        rows += [KINDS[kinds[i]] for i in np.where(other, rng.integers(0, len(kinds), length), 0)]
    return rows


DONE = (EventKind.ACKNOWLEDGED, EventKind.SHELVED, EventKind.UNSHELVED, EventKind.OUT_OF_SERVICE, EventKind.IN_SERVICE)
votes = st.sampled_from(["1/1", "1/4", "2/3", "3/5", "5/6"])


@settings(max_examples=250, deadline=None)
@given(
    parts=segments,
    hops=st.sampled_from([(10.0, 5.0), (2.0, 2.0), (4.0, 1.0), (10.0, 3.0)]),
    raising=votes,
    clearing=votes,
    latch=st.booleans(),
    repeats=st.sampled_from([2, 4]),
    pieces=st.sampled_from([1, 3]),
    acts=st.lists(st.tuples(st.floats(0, 3000), st.sampled_from(list(DONE))), max_size=3),
)  # fmt: skip
def test_leaving_out_windows_changes_nothing(parts, hops, raising, clearing, latch, repeats, pieces, acts) -> None:
    window_s, hop_s = hops
    target = machine(
        window_s, hop_s, window_votes=raising, clear_votes=clearing, latch=latch, transient_repeats=repeats
    )
    past = history(rows_of(parts), hop_s)
    commands = [command(kind, UTC_S + at) for at, kind in sorted(acts)]
    every, one = replayed(target, past, screened=False, commands=commands)
    few, other = replayed(target, past, screened=True, parts=pieces, commands=commands)
    assert few == every
    assert other.state == one.state  # votes included
    assert (other.judged, other.windows) == (one.judged, one.windows)
    assert one.stepped == len(past) - sum(one.lost.values())


@pytest.mark.parametrize("look", ["sudden", "off", "dog"])
def test_votes_from_before_what_was_left_out_count_no_more(look: str) -> None:
    """Wherever windows begin and cease to be left out: two votes of long ago and a new one are no three."""
    calm, target = KINDS["calm"], machine(2.0, 2.0)
    for before in range(15):
        for gap in range(8, 15):
            rows = [calm] * 40 + [KINDS[look]] + [calm] * before + [KINDS["alert"]] * 2 + [calm] * 60
            rows += [KINDS["alert"]] + [calm] * gap + [KINDS[look]] + [calm] * 40
            every, one = replayed(target, history(rows, 2.0), screened=False)
            few, other = replayed(target, history(rows, 2.0), screened=True)
            assert few == every
            assert other.stepped < one.stepped
            assert not episodes(every)


def command(kind: EventKind, utc_s: float) -> AlarmEvent:
    return AlarmEvent(
        id="c", alarm_id="", machine="m", kind=kind, level=Level.NORMAL, utc_s=utc_s, time_synced=True, reason="",
        until_utc_s=utc_s + 600.0, by="eva",
    )  # fmt: skip


def test_a_long_calm_history_is_hardly_touched_and_a_fault_in_it_found() -> None:
    rows = [KINDS["calm"]] * 20_000 + [KINDS["danger"]] * 5_000 + [KINDS["off"]] * 5_000 + [KINDS["calm"]] * 5_000
    events, replay = replayed(machine(), history(rows), screened=True)
    assert replay.stepped < 200
    (alarm,) = episodes(events)
    assert alarm.level is Level.DANGER
    assert alarm.raised_utc_s == UTC_S + 5.0 * (20_000 + 3) + 10.0
    assert alarm.cleared_utc_s == UTC_S + 5.0 * (30_000 + 4) + 10.0


def test_other_votes_change_the_verdict() -> None:
    rows = ([KINDS["calm"]] * 40 + [KINDS["alert"]] * 3) * 10 + [KINDS["calm"]] * 40
    assert len(episodes(replayed(machine(), history(rows), screened=True)[0])) == 10
    assert not replayed(machine(window_votes="4/6"), history(rows), screened=True)[0][1:]


def test_a_baseline_that_is_gone_is_said() -> None:
    rows = [KINDS["calm"]] * 30 + [KINDS["other baseline"]] * 20
    known = {"v1": manifest("v1")}
    _, replay = replayed(machine(), history(rows), screened=True, manifest=known.get)
    assert replay.lost == {"v2": 20}
    assert replay.windows == 50


def test_what_was_off_by_its_level_stays_off_and_what_was_off_by_its_sound_may_deviate() -> None:
    for kind, alarms in (("quiet", 0), ("unlike off", 1)):
        rows = [KINDS["calm"]] * 30 + [KINDS[kind]] * 20
        assert len(episodes(replayed(machine(), history(rows), screened=True)[0])) == alarms


@pytest.mark.parametrize("kinds", [["alert", "calm"], ["sudden", "calm"]])
def test_a_machine_at_the_limit_is_gone_through_window_by_window(kinds: list[str]) -> None:
    rows = rows_of([(kinds, 500, 1.0, 1)])
    every, _ = replayed(machine(), history(rows), screened=False)
    few, _ = replayed(machine(), history(rows), screened=True)
    assert few == every
    assert len(every) > 3 or kinds[0] == "sudden"
