"""Which windows vote, and when transients count. Times are those of the windows; nothing here waits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asd_agent import config
from asd_agent.decide import Alarm
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.drift import Drift, DriftState
from asd_agent.decide.event_rate import EventRate, most
from asd_agent.decide.fusion import Spread
from asd_agent.decide.overload import Overload, OverloadState
from asd_agent.decide.votes import NUISANCE_PATIENCE_S, Patience, VoteFilter
from asd_agent.reasons import Trigger
from asd_agent.types import AlarmState, Cause, EventKind, Quality, State, WindowResult

QUALITY = Quality(causes=(), level_dbfs=-20.0, peak=0.5, dc=0.0, clipped=0.0)
LIMITS = Thresholds(alert_p=1e-3, danger_p=1e-6, alert_clear_p=1e-2, danger_clear_p=1e-5)


def machine(window_s: float = 10.0, hop_s: float = 5.0, window_votes: str = "3/5", **alarm: object) -> config.Machine:
    return config.Machine(
        id="m",
        source=config.SimulatedSource(),
        window_s=window_s,
        hop_s=hop_s,
        alarm=config.Alarm(window_votes=window_votes, **alarm),
    )


def result(i: int, kind: str, hop_s: float = 5.0, **more: object) -> WindowResult:
    """ "A" deviates, "n" is normal (of state idle), "l" is normal of state loaded, "x" cannot be judged."""
    state = {"A": State.ANOMALOUS, "x": State.NOT_ASSESSABLE}.get(kind, State.NORMAL)
    fields = {
        "operating": {"l": "loaded"}.get(kind, "idle"),
        "p_value": {"A": 1e-4, "x": None}.get(kind, 0.5),
        "transient_p": 0.5,
    }
    return WindowResult(
        index=i, start_s=i * hop_s, duration_s=10.0, utc_s=1e6 + i * hop_s, origin="", state=state, quality=QUALITY,
        **(fields | more),
    )  # fmt: skip


def admitted(kinds: str, settings: config.Machine | None = None, **more: object) -> str:
    settings = settings or machine()
    lane, patience, votes = VoteFilter(settings), Patience(), []
    for i, k in enumerate(kinds):
        window = result(i, k, settings.hop_s, **(more if k == "A" else {}))
        votes += lane.admit(window, patience.explains(window))
    return "".join("A" if v.state is State.ANOMALOUS else kinds[v.index] for v in votes)


def raised_after(kinds: str, settings: config.Machine) -> int | None:
    """The number of windows until the alarm is raised."""
    lane, alarm = VoteFilter(settings), Alarm(settings, LIMITS, AlarmState())
    for i, kind in enumerate(kinds):
        for vote in lane.admit(result(i, kind, settings.hop_s)):
            if any(e.kind is EventKind.RAISED for e in alarm.update(vote, True)):
                return i + 1
    return None


def test_a_change_of_state_does_not_vote() -> None:
    assert admitted("nnAAlll") == "nnlll"
    assert admitted("llAnnn") == "llnnn"


def test_a_deviation_without_change_of_state_votes() -> None:
    assert admitted("nnAAAnn") == "nnAAAnn"
    assert admitted("nnAAAAlll") == "nnAAAAlll"  # far too long for a change of state


def test_windows_that_all_overlap_vote_once() -> None:
    assert admitted("nnAAnn") == "nnAnn"
    assert admitted("nAnnAn") == "nAnnAn"


def test_a_lasting_fault_is_raised_at_the_third_window() -> None:
    assert raised_after("nnn" + "AAAAA", machine()) == 6
    assert raised_after("nnn" + "AAAAA", machine(window_s=2.0, hop_s=2.0)) == 6


@pytest.mark.parametrize("hop_s", [1.0, 2.5, 5.0, 10.0])
def test_a_single_moment_never_raises_however_windows_overlap(hop_s: float) -> None:
    touched = math.ceil(10 / hop_s)
    assert raised_after("n" * 6 + "A" * touched + "n" * 20, machine(hop_s=hop_s)) is None


def test_windows_at_a_told_change_of_state_are_passed_over() -> None:
    lane = VoteFilter(machine())
    change = {"state": State.NOT_ASSESSABLE, "p_value": None, "cause": Cause.STATE_CHANGING}
    kinds = [("n", {}), ("A", {}), *[("n", change)] * 3, ("l", {}), ("l", {})]
    votes = [v for i, (kind, more) in enumerate(kinds) for v in lane.admit(replace(result(i, kind), **more))]
    assert [v.index for v in votes] == [0, 5, 6]  # also the deviation at its edge


def test_windows_that_cannot_be_judged_pass_and_release_what_was_held() -> None:
    assert admitted("nAx") == "nAx"


def test_a_recognised_nuisance_sound_does_not_vote_but_cannot_hide_what_stays() -> None:
    assert admitted("nn" + "A" * 20 + "nn", nuisance="Dog (z 7)") == "nnnn"
    stays = admitted("nn" + "A" * 200, nuisance="Dog (z 7)")
    assert stays.count("A") == 200 - NUISANCE_PATIENCE_S / 5


@given(st.text("nlAx", max_size=60), st.sampled_from([1.0, 2.5, 5.0, 10.0]))
def test_votes_come_in_order_once_and_all_normal_windows_vote(kinds: str, hop_s: float) -> None:
    lane = VoteFilter(machine(hop_s=hop_s))
    votes = [v.index for i, k in enumerate(kinds) for v in lane.admit(result(i, k, hop_s))]
    assert votes == sorted(set(votes))
    assert {i for i, k in enumerate(kinds) if k != "A"} <= set(votes)


def moments(lane: EventRate, times_s: list[float], **more: object) -> bool:
    return [lane.update(result(0, "n", transient_p=1e-6, transient_at_s=t, **more)) for t in times_s][-1]


def test_one_moment_is_no_alarm_and_moments_that_come_back_are() -> None:
    lane = EventRate(machine(), transients_per_hour=0.0, calibrated_s=16 * 3600)
    assert lane.allowed == 4
    assert not moments(lane, [0.0, 1.0, 2.0, 20.0])  # one episode, however many barks
    assert not moments(lane, [100.0, 200.0])
    assert moments(lane, [300.0])
    assert not moments(lane, [3 * 3600.0])  # an hour later it is forgotten


def test_moments_that_come_back_raise_the_alarm_and_clear_it_when_they_stop() -> None:
    settings = machine()
    lane, alarm = EventRate(settings, 0.0, 16 * 3600), Alarm(settings, LIMITS, AlarmState())
    events = []
    for i in range(1200):
        window = result(i, "n", transient_p=1e-6 if i % 20 == 0 and i < 200 else 0.5)
        lane.update(window)
        events += alarm.update(window, True)
        events += alarm.stand(lane.standing, window, True)
    assert [e.trigger for e in events][-2:] == [Trigger.EVENT_RATE] * 2
    assert [e.kind for e in events][-2:] == [EventKind.RAISED, EventKind.CLEARED]
    assert "4 knocks or bangs within" in events[-2].reason


def test_recognised_nuisance_moments_do_not_count() -> None:
    lane = EventRate(machine(), 0.0, 3600)
    assert not moments(lane, [100.0 * i for i in range(20)], nuisance="Dog (z 7)")


@pytest.mark.parametrize("hours", [0.1, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("events", [0.5, 3.5, 20.5])
def test_the_allowed_count_is_a_quantile_of_the_negative_binomial(events: float, hours: float) -> None:
    from scipy.stats import nbinom

    distribution, k = nbinom(events, hours / (hours + 1)), most(events, hours, 1e-3)
    if k < 120:
        assert distribution.sf(k) <= 1e-3
        assert k == 0 or distribution.sf(k - 1) > 1e-3


def test_a_machine_that_knocks_in_calibration_may_go_on_knocking() -> None:
    quiet, knocking = EventRate(machine(), 0.0, 3600), EventRate(machine(), 20.0, 3600)
    assert knocking.allowed > 35 > quiet.allowed


def test_a_machine_that_becomes_too_loud_is_told_as_such_and_cleared_when_it_is_not() -> None:
    settings = machine(window_votes="7/9")
    lane, alarm = Overload((7, 9), clipped_share=0.0), Alarm(settings, LIMITS, AlarmState())
    loud = {"cause": Cause.CLIPPING, "reason": "clipping"}
    events = []
    for i, kind in enumerate("n" * 20 + "x" * 60 + "n" * 40):
        window = result(i, kind, **(loud if kind == "x" else {}))
        lane.update(window)
        events += alarm.update(window, True)
        events += alarm.stand(lane.standing, window, True)
        lane = Overload((7, 9), 0.0, lane.state)  # a restart changes nothing
    raised, cleared = [e for e in events if e.kind in (EventKind.RAISED, EventKind.CLEARED)]
    assert raised.trigger is cleared.trigger is Trigger.OVERLOAD
    assert raised.utc_s == 1e6 + 5.0 * 26 + 10.0
    assert "louder than the microphone can take" in raised.reason
    assert any(e.kind is EventKind.NOT_ASSESSABLE and e.utc_s < raised.utc_s for e in events)


def test_clipping_that_calibration_had_is_no_news_and_a_short_one_raises_nothing() -> None:
    def shares(kinds: str, clipped_share: float) -> list[float]:
        lane = Overload((7, 9), clipped_share)
        found = []
        for i, kind in enumerate(kinds):
            lane.update(result(i, kind, **({"cause": Cause.CLIPPING} if kind == "x" else {})))
            found.append(lane.standing.share if lane.standing is not None else 0.0)
        return found

    assert max(shares("n" * 9 + "x" * 30, 0.5)) == 0
    assert max(shares("n" * 9 + "x" * 6 + "n" * 9, 0.0)) < 1
    assert shares("n" * 9 + "x" * 30, 0.0)[-1] > 1


def test_what_cannot_be_judged_for_another_reason_is_no_overload() -> None:
    lane = Overload((7, 9), 0.0)
    for i in range(20):
        lane.update(result(i, "x", cause=Cause.GAP))
    assert lane.state == OverloadState()


SPREAD = Spread(within=0.7, between=0.2, windows=500, blocks=5, sessions=4)


def fed(scores: list[float]) -> Drift:
    drift = Drift(SPREAD, hop_s=5.0)
    for score in scores:
        drift.update(score)
    return drift


def test_a_slow_rise_is_drift_and_a_wild_hour_is_not() -> None:
    assert not fed([0.0] * 20_000).drifting
    assert not fed([0.0] * 3000 + [30.0] * 720 + [0.0] * 3000).drifting
    rising = fed([2.0] * 720 * 24)
    assert rising.drifting
    assert rising.level == pytest.approx(2.0, abs=0.05)


def test_drift_goes_on_after_a_restart() -> None:
    whole = fed([1.5] * 3000)
    half = fed([1.5] * 1000)
    again = Drift(SPREAD, 5.0, DriftState(**{f: getattr(half.state, f) for f in half.state.__struct_fields__}))
    for _ in range(2000):
        again.update(1.5)
    assert again.state == whole.state
