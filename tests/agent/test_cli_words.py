"""What commands say to people: widths, times, verdicts, advice."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent import config
from asd_agent.calibration.report import place, verdict
from asd_agent.cli.states import moment
from asd_agent.cli.words import Row, listing, local, wrapped, zone
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.fusion import Fusion, Spread
from asd_agent.decide.reason import when
from asd_agent.decide.support import Support
from asd_agent.types import WindowRef, rfc3339

INSTRUCTION = "no baseline yet; run `asd-agent calibrate` while the machine runs as it usually does, for ten minutes"
cell = st.text("abcdefgh0123456789-.:", max_size=30)


@given(st.lists(st.tuples(cell, cell, cell), min_size=1, max_size=5), st.sampled_from([40, 80, 200]))
def test_a_listing_fits_its_width_and_loses_nothing(cells, width):
    rows = [Row(one, [INSTRUCTION]) for one in cells]
    lines = listing(("machine", "state", "score"), rows, width).plain.splitlines()
    longest = max((len(c) for one in cells for c in one), default=0) + len("machine: ")
    assert max(len(line) for line in lines) <= max(width, longest)
    joined = " ".join(" ".join(lines).split())
    assert joined.count(INSTRUCTION) == len(rows)
    assert all(c in joined for one in cells for c in one)


def test_what_can_be_copied_stays_whole():
    path = "/var/lib/asd-agent/machines/compressor-1/outliers/20260302T104231Z/" + "x" * 40 + ".flac"
    assert path in wrapped(f"listen to {path} and to the others", 80)


@pytest.fixture
def kolkata(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kolkata")  # 5.5 h ahead
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_people_read_local_time_and_programs_utc(kolkata):
    noon = 1_767_268_800.0  # 2026-01-01 12:00 UTC
    assert (local(noon), zone()) == ("2026-01-01 17:30:00", "IST")
    assert rfc3339(noon) == "2026-01-01T12:00:00.000Z"
    assert when(noon) == "2026-01-01 17:30 IST"
    assert place(WindowRef("", 3.0, 10.0, noon)) == "live at 2026-01-01 17:30:00 IST"
    assert moment("2026-01-01 17:30", 0) == moment("2026-01-01T12:00:00Z", 0) == noon
    assert moment("17:00", noon) == noon - 1800
    assert moment("18:00", noon) == noon + 1800 - 86_400
    assert moment("11:30Z", noon) == noon - 1800


def support(**changes) -> Support:
    given_ = {"per_month": 1.0, "low": 0.1, "high": 30.0, "strays": 0, "supported": False}
    return Support(**(given_ | {"more_hours": 1.0, "more_days": 1} | changes))


@pytest.mark.parametrize(
    ("found", "seconds", "words"),
    [
        (support(supported=True), 7200, "Good: this calibration supports the budget of 1 false alarm a month."),
        (support(), 240, "Too little sound to promise anything yet: record 1 hour on another day."),
        (
            support(more_hours=0.25, more_days=0), 3600,
            "Too little sound to promise the budget of 1 false alarm a month yet: record 15 minutes more.",
        ),
        (
            support(more_hours=4.0, more_days=3), 3600,
            "Too little sound to promise the budget of 1 false alarm a month yet: record 4 hours, spread over 3 other "
            "days.",
        ),
    ],
)  # fmt: skip
def test_the_verdict_is_one_sentence(found, seconds, words):
    assert verdict(found, seconds, 1.0) == words


def test_where_no_sound_would_do_the_verdict_says_what_would():
    assert "raise alarm.false_alarms_per_month" in verdict(support(more_hours=None, more_days=None), 3600, 1.0)


@settings(max_examples=15, deadline=None)
@given(
    st.floats(0.3, 1.0), st.floats(0.0, 0.8), st.integers(1, 6), st.integers(40, 400), st.integers(2, 20),
    st.integers(0, 5), st.integers(0, 200), st.integers(0, 3),
)  # fmt: skip
def test_more_of_the_same_sound_never_asks_for_more(
    within, between, sessions, windows, factor, strays, later_strays, later_days
):
    """However many windows stray in the first recordings and in the later ones."""
    spread = Spread(within=within, between=between, windows=windows, blocks=max(5, sessions), sessions=sessions)
    more = msgspec.structs.replace(spread, windows=windows * factor, sessions=sessions + later_days)
    before, after = advice(spread, strays), advice(more, min(strays + later_strays, windows * factor))
    if before.more_hours is None or before.more_days is None or after.more_hours is None or after.more_days is None:
        return  # no amount would do, or what strays has to go: that asks for no sound
    assert after.more_hours <= before.more_hours
    assert after.more_days <= before.more_days


def test_strays_that_are_no_chance_have_to_go_and_no_sound_makes_up_for_them():
    spread = Spread(within=0.7, between=0.3, windows=400, blocks=5, sessions=2)
    assert advice(spread, 1).more_hours is not None
    assert advice(spread, 20).more_hours is None


def advice(spread: Spread, strays: int) -> Support:
    alarm = config.Alarm()
    held_out = np.zeros(spread.windows)
    held_out[:strays] = 40.0
    thresholds = Thresholds.of(alarm, spread, 10.0, 5.0)
    return Support.of(thresholds, Fusion(median=0.0, scale=1.0, spread=spread), held_out, alarm, 10.0, 5.0)


def test_a_long_work_says_on_a_terminal_how_long_it_still_takes():
    code = (
        "import sys, time; sys.stderr.isatty = lambda: True; from asd_agent.cli import words\n"
        "for _ in words.track(list(range(4)), 'measuring'): time.sleep(0.3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": "80", "TTY_COMPATIBLE": "1"},
    )  # fmt: skip
    assert "measuring" in done.stderr
    assert "4 of 4" in done.stderr
    assert "remaining" in done.stderr
    assert done.stdout == ""
