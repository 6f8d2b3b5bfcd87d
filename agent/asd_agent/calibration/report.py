"""What a calibration is worth: which windows it used, what they support, and what to do about it, in plain words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from asd_agent import config
from asd_agent.baseline import Arrays, LeftOut, Outlier, Report, StateCalibration
from asd_agent.decide.blocks import FEWEST_WINDOWS
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.reason import WORDS as CAUSES
from asd_agent.decide.reason import too_coherent, when
from asd_agent.decide.states import FEWEST as FEWEST_FOR_STATES
from asd_agent.decide.states import OFF
from asd_agent.decide.support import Support
from asd_agent.types import Cause, Description, WindowRef
from asd_agent.windowing.reference import hears_machine

ENOUGH_S = 300.0  # below it the report says "little sound"
PARTS_LISTED = 20
APART = (Cause.NOT_RUNNING, Cause.EXCLUDED, Cause.STATE_CHANGING, Cause.STATE_NOT_REPORTED)  # the sound is good
REFERENCE_SHARE = 0.9  # of the windows need a sound of the reference microphone, where there is one
SPOILT_SHARE = 0.1  # of the windows: more is a concern
STATIONARY = 1.5  # blocks may differ by this many times what windows do, before the report calls it drift


@dataclass(frozen=True)
class Selection:
    usable: list[Description]
    left_out: list[LeftOut]

    @property
    def excluded(self) -> dict[Cause, int]:
        """Cause -> windows; a window with several causes counts for the first."""
        return dict(Counter(window.causes[0] for window in self.left_out))


@dataclass(frozen=True)
class StateFit:
    """One operating state as it came out of the calibration."""

    calibration: StateCalibration
    windows: Sequence[Description]
    held_out: Sequence[float]  # fused scores, each window judged by the other blocks
    arrays: Arrays


def place(window: WindowRef) -> str:
    """Where a window is, for people: "rec3.flac 30.0-40.0 s", "live at 2026-03-02 10:42:31 CET"."""
    if not window.origin and window.utc_s > 0:
        return f"live at {when(window.utc_s, seconds=True)}"
    return f"{window.origin or 'live'} {window.start_s:.1f}-{window.start_s + window.duration_s:.1f} s"


def select(
    machine: config.Machine, descriptions: Sequence[Description], exclude: Collection[WindowRef] = ()
) -> Selection:
    """Usable windows, and why the rest is left out. `exclude`: windows that a person has listened to.

    Far quieter windows were recorded while the machine was off. A few of them are left out; enough of them are a state.
    """
    reported = any(d.operating for d in descriptions)
    causes = [_causes(d, exclude, reported) for d in descriptions]
    levels = np.array([d.quality.level_dbfs for d in descriptions])
    sound = np.array([not found for found in causes], bool)
    if machine.quality.off_db is not None and sound.any():
        quiet = sound & (levels < np.percentile(levels[sound], 75) - machine.quality.off_db)
        if quiet.sum() < FEWEST_WINDOWS or sound.sum() < FEWEST_FOR_STATES:
            causes = [(Cause.NOT_RUNNING,) if q else found for q, found in zip(quiet, causes, strict=True)]
    return Selection(
        usable=[d for d, found in zip(descriptions, causes, strict=True) if not found],
        left_out=[LeftOut(window=d.ref, causes=found) for d, found in zip(descriptions, causes, strict=True) if found],
    )


def _causes(description: Description, exclude: Collection[WindowRef], reported: bool) -> tuple[Cause, ...]:
    """Why a window cannot be used; `reported`: others have an operating state that the machine reported."""
    if not description.quality.assessable:
        return description.quality.causes
    if description.ref in exclude:
        return (Cause.EXCLUDED,)
    if description.changing:
        return (Cause.STATE_CHANGING,)
    return (Cause.STATE_NOT_REPORTED,) if reported and not description.operating else ()


def report(machine: config.Machine, selection: Selection, fits: Sequence[StateFit]) -> Report:
    """Over all states; the support is that of the state that promises least."""
    used = sum(len(f.windows) for f in fits)
    thresholds = Thresholds.strictest(
        machine.alarm, [f.calibration.fusion.spread for f in fits], machine.window_s, machine.hop_s
    )
    supports = [
        Support.of(thresholds, f.calibration.fusion, f.held_out, machine.alarm, machine.window_s, machine.hop_s)
        for f in fits
    ]
    support = max(supports, key=lambda s: s.high)
    outliers = [outlier for f in fits for outlier in _outliers(f, thresholds)]
    return Report(
        windows=used,
        seconds=seconds(machine, used),
        excluded=selection.excluded,
        left_out=selection.left_out[:PARTS_LISTED],
        outliers=outliers,
        support=support,
        budget_per_month=machine.alarm.false_alarms_per_month,
        verdict=verdict(support, seconds(machine, used), machine.alarm.false_alarms_per_month),
        facts=_facts(machine, selection, fits, support, thresholds),
        concerns=[*_concerns(selection, fits), *_reference_concerns(machine, fits)],
    )


def verdict(support: Support, seconds: float, budget: float) -> str:
    """The calibration in one sentence: what it is good for, and what to do."""
    alarms = f"{budget:g} false alarm{'s' * (budget != 1)} a month"
    if support.supported:
        return f"Good: this calibration supports the budget of {alarms}."
    if support.more_hours is None or support.more_days is None:
        return (
            f"More sound will not help to support the budget of {alarms}: remove what disturbs single windows, or "
            "raise alarm.false_alarms_per_month."
        )
    enough = "to promise anything yet" if seconds < ENOUGH_S else f"to promise the budget of {alarms} yet"
    return f"Too little sound {enough}: record {_advice(support.more_hours, support.more_days)}."


def _advice(hours: float, days: int) -> str:
    """ "15 minutes more", "1 hour on another day", "4 hours, spread over 3 other days"."""
    length = f"{hours * 60:g} minutes" if hours < 1 else f"{hours:g} hour{'s' * (hours != 1)}"
    if days == 0:
        return f"{length} more"
    return f"{length} on another day" if days == 1 else f"{length}, spread over {days} other days"


def _facts(
    machine: config.Machine, selection: Selection, fits: Sequence[StateFit], support: Support, thresholds: Thresholds
) -> list[str]:
    """The numbers behind the verdict, a sentence each."""
    used = sum(len(f.windows) for f in fits)
    total = len(selection.usable) + len(selection.left_out)
    facts = [f"{used} of {total} windows are usable, {seconds(machine, used) / 60:.1f} min of sound"]
    if idle := selection.excluded.get(Cause.NOT_RUNNING, 0):
        facts.append(f"the machine was not running in {idle} windows; they were left out")
    if spoilt := _spoilt(selection):
        facts.append("left out: " + ", ".join(f"{CAUSES[cause]} {n}" for cause, n in spoilt.items()))
    if len(fits) > 1:
        found = ", ".join(f"{f.calibration.name} ({len(f.windows)}, {f.calibration.level_dbfs:.0f} dBFS)" for f in fits)
        facts.append(f"{len(fits)} operating states, each judged by itself (windows, level): {found}")
    facts += _reference_facts(fits)
    if not _wandering(fits):
        facts.append("the sound is stationary over the calibration")
    return [
        *facts,
        f"days with a false alarm per month: {support.per_month:.2g} expected, 90 % interval {support.low:.2g} to "
        f"{support.high:.2g}; the budget is {machine.alarm.false_alarms_per_month:g}",
        f"a window deviates from a score of {-math.log10(thresholds.alert_p):.2f}",
    ]


def _concerns(selection: Selection, fits: Sequence[StateFit]) -> list[str]:
    """What is not good about it, and what to do."""
    concerns = []
    total = len(selection.usable) + len(selection.left_out)
    spoilt = _spoilt(selection)
    if sum(spoilt.values()) > total * SPOILT_SHARE:
        words = ", ".join(f"{CAUSES[cause]} {n}" for cause, n in spoilt.items())
        concerns.append(f"{sum(spoilt.values())} of {total} windows could not be used: {words}")
    if wandering := _wandering(fits):
        where = f" while {', '.join(wandering)}" if len(fits) > 1 else ""
        concerns.append(
            f"the sound changed during the calibration{where} (load, speed, a second machine?): record each state for "
            "longer"
        )
    return concerns


def _spoilt(selection: Selection) -> dict[Cause, int]:
    """Cause -> windows, of sound that could not be used."""
    return {cause: n for cause, n in selection.excluded.items() if cause not in APART}


def _wandering(fits: Sequence[StateFit]) -> list[str]:
    """States whose sound changed more between blocks than within them."""
    spreads = {f.calibration.name: f.calibration.fusion.spread for f in fits}
    return [name for name, spread in spreads.items() if spread.between > STATIONARY * spread.within]


def seconds(machine: config.Machine, windows: int) -> float:
    """Of sound in so many windows."""
    return windows * machine.hop_s + machine.window_s - machine.hop_s


def _reference_concerns(machine: config.Machine, fits: Sequence[StateFit]) -> list[str]:
    """Of the reference microphone, where there should be one."""
    if machine.reference is None:
        return []
    running = [f for f in fits if f.calibration.name != OFF] or fits
    heard = [d.room for f in running for d in f.windows if d.room is not None]
    total = sum(len(f.windows) for f in running)
    concerns = []
    if len(heard) < REFERENCE_SHARE * total:
        concerns.append(
            f"the reference microphone was silent or missing in {total - len(heard)} of {total} windows: look after "
            "it, and calibrate again"
        )
    if (coherence := hears_machine(heard)) is not None:
        concerns.append(f"{too_coherent(coherence)}, and calibrate again")
    return concerns


def _reference_facts(fits: Sequence[StateFit]) -> list[str]:
    return [
        f"the reference microphone explains {f.calibration.room.coherence:.0%} of the sound at the machine"
        + (f" ({f.calibration.name})" if len(fits) > 1 else "")
        for f in fits
        if f.calibration.room is not None
    ]


def _outliers(fit: StateFit, thresholds: Thresholds) -> list[Outlier]:
    fusion = fit.calibration.fusion
    limit = fusion.score_of(thresholds.alert_p)
    return [
        Outlier(window=d.ref, score=score, limit=limit, state=fit.calibration.name)
        for d, score in zip(fit.windows, fit.held_out, strict=True)
        if fusion.p_of(score) <= thresholds.alert_p
    ]
