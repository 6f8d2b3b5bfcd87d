"""What a calibration is worth: which windows it used, what they support, and what to do about it, in plain words."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from asd_agent import config
from asd_agent.baseline import Arrays, Report, StateCalibration
from asd_agent.decide.blocks import FEWEST_WINDOWS
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.states import FEWEST as FEWEST_FOR_STATES
from asd_agent.decide.support import Support
from asd_agent.types import CHANGING, Description

ENOUGH_S = 300.0  # below it the verdict says "little sound"
PARTS_LISTED = 20
OUTLIERS_LISTED = 50
NOT_RUNNING = "not running (far quieter)"
EXCLUDED = "excluded by hand"
NOT_REPORTED = "operating state not told"
APART = (NOT_RUNNING, EXCLUDED, CHANGING, NOT_REPORTED)  # left out, but nothing is wrong with the sound
SPOILT_SHARE = 0.1  # of the windows: more is a concern
STATIONARY = 1.5  # blocks may differ by this many times what windows do, before the verdict calls it drift


@dataclass(frozen=True)
class Selection:
    usable: list[Description]
    excluded: dict[str, int]  # reason -> windows
    parts: list[str]  # where the excluded ones are


@dataclass(frozen=True)
class StateFit:
    """One operating state as it came out of the calibration."""

    calibration: StateCalibration
    windows: Sequence[Description]
    held_out: Sequence[float]  # fused scores, each window judged by the other blocks
    arrays: Arrays


def place(description: Description) -> str:
    """Where a window is, for people and for `exclude`: "rec3.flac 30.0-40.0 s", "live at 2026-03-02 10:42:31.5 UTC"."""
    start_s = description.start_s
    if not description.origin and description.utc_s > 0:
        tenths = round(description.utc_s * 10)
        return f"live at {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(tenths // 10))}.{tenths % 10} UTC"
    return f"{description.origin or 'live'} {start_s:.1f}-{start_s + description.duration_s:.1f} s"


def select(machine: config.Machine, descriptions: Sequence[Description], exclude: Collection[str] = ()) -> Selection:
    """Usable windows; reasons and places of the rest. `exclude`: places that a person has listened to.

    Far quieter windows were recorded while the machine was off. A few of them are left out; enough of them are a state.
    """
    told = any(d.operating for d in descriptions)
    reasons = [
        ", ".join(d.quality.reasons)
        or (EXCLUDED if place(d) in exclude else "")
        or (CHANGING if d.changing else NOT_REPORTED if told and not d.operating else "")
        for d in descriptions
    ]
    levels = np.array([d.quality.level_dbfs for d in descriptions])
    heard = np.array([not reason for reason in reasons], bool)
    if machine.quality.off_db is not None and heard.any():
        quiet = heard & (levels < np.percentile(levels[heard], 75) - machine.quality.off_db)
        if quiet.sum() < FEWEST_WINDOWS or heard.sum() < FEWEST_FOR_STATES:
            reasons = [NOT_RUNNING if q else reason for reason, q in zip(reasons, quiet, strict=True)]
    parts = [f"{place(d)}: {reason}" for d, reason in zip(descriptions, reasons, strict=True) if reason]
    return Selection(
        usable=[d for d, reason in zip(descriptions, reasons, strict=True) if not reason],
        excluded=dict(Counter(r for r in reasons if r)),
        parts=_listed(parts),
    )


def report(machine: config.Machine, selection: Selection, fits: Sequence[StateFit]) -> Report:
    """The verdict over all states; the support is that of the state that promises least."""
    used = sum(len(f.windows) for f in fits)
    total = len(selection.usable) + sum(selection.excluded.values())
    thresholds = Thresholds.strictest(
        machine.alarm, [f.calibration.fusion.spread for f in fits], machine.window_s, machine.hop_s
    )
    supports = [
        Support.of(thresholds, f.calibration.fusion, f.held_out, machine.alarm, machine.window_s, machine.hop_s)
        for f in fits
    ]
    support = max(supports, key=lambda s: s.high)
    outliers = {place: line for f in fits for place, line in _outliers(f, thresholds).items()}
    facts = [f"{used} of {total} windows are usable, {seconds(machine, used) / 60:.1f} min of sound"]
    concerns = []
    if seconds(machine, used) < ENOUGH_S:
        concerns.append(f"little sound: {ENOUGH_S / 60:.0f} min or more, over different days, are better")
    idle = selection.excluded.get(NOT_RUNNING, 0)
    if idle:
        facts.append(f"the machine was not running in {idle} windows; they were left out")
    spoilt = {reason: n for reason, n in selection.excluded.items() if reason not in APART}
    if spoilt:
        words = f"{sum(spoilt.values())} windows were spoilt and left out: "
        words += ", ".join(f"{reason} {n}" for reason, n in spoilt.items())
        (concerns if sum(spoilt.values()) > total * SPOILT_SHARE else facts).append(words)
    if len(fits) > 1:
        found = ", ".join(f"{f.calibration.name} ({len(f.windows)}, {f.calibration.level_dbfs:.0f} dBFS)" for f in fits)
        facts.append(f"{len(fits)} operating states, each judged by itself (windows, level): {found}")
    wandering = [
        f.calibration.name for f in fits
        if f.calibration.fusion.spread.between > STATIONARY * f.calibration.fusion.spread.within
    ]  # fmt: skip
    if wandering:
        where = f" while {', '.join(wandering)}" if len(fits) > 1 else ""
        concerns.append(
            f"the sound changed during the calibration{where} (load, speed, a second machine?): "
            "record each state for longer"
        )
    else:
        facts.append("the sound is stationary over the calibration")
    if not support.supported:
        concerns.append(_support_words(support))
    if outliers:
        words = f"{len(outliers)} calibration windows exceed the limit themselves: listen to them, and leave out what "
        facts.append(words + "does not belong there (calibrate --exclude)")
    facts.append(
        f"expected: {support.per_month:.2g} days with a false alarm per month (90 % interval {support.low:.2g} to "
        f"{support.high:.2g}); the budget is {machine.alarm.false_alarms_per_month:g}"
    )
    facts.append(f"a window counts as anomalous from a score of {-math.log10(thresholds.alert_p):.2f}")
    return Report(
        windows=used,
        seconds=seconds(machine, used),
        excluded=selection.excluded,
        excluded_parts=selection.parts,
        outliers=[f"{place}: {line}" for place, line in outliers.items()][:OUTLIERS_LISTED],
        outlier_places=list(outliers),
        support=support,
        budget_per_month=machine.alarm.false_alarms_per_month,
        facts=facts,
        concerns=concerns,
    )


def seconds(machine: config.Machine, windows: int) -> float:
    """Of sound in so many windows."""
    return windows * machine.hop_s + machine.window_s - machine.hop_s


def _outliers(fit: StateFit, thresholds: Thresholds) -> dict[str, str]:
    """WindowPosition -> words, of the windows beyond the limit."""
    fusion = fit.calibration.fusion
    limit = fusion.score_of(thresholds.alert_p)
    return {
        place(d): f"score {score:.1f}, the limit is {limit:.1f} ({fit.calibration.name})"
        for d, score in zip(fit.windows, fit.held_out, strict=True)
        if fusion.p_of(score) <= thresholds.alert_p
    }


def _support_words(support: Support) -> str:
    """What would support the budget."""
    if support.more_hours is None or support.more_days is None:
        return "more sound alone will not support the budget: mend what spoils single windows, or raise the budget"
    other = f" on {support.more_days} other day(s)" if support.more_days else ""
    return f"the budget is not supported yet: {support.more_hours:g} h more of normal sound{other} would"


def _listed(lines: list[str]) -> list[str]:
    more = len(lines) - PARTS_LISTED
    return lines if more <= 0 else [*lines[:PARTS_LISTED], f"and {more} more windows"]
