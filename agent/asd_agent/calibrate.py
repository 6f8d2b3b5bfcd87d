"""Normal windows -> a baseline, with a verdict in plain words."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from asd_agent import bank, config
from asd_agent.baseline import Arrays, Baseline, DetectorCalibration, InputChain, Manifest, Report, prefixed
from asd_agent.capture import open_source, recordings
from asd_agent.decide.blocks import FEWEST_WINDOWS, Labels, blocks, leave_block_out, sessions
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.fusion import Fusion
from asd_agent.decide.logscore import LogScore
from asd_agent.decide.support import Support
from asd_agent.errors import CalibrationError, EndOfSource, SourceError
from asd_agent.pipeline import Pipeline, Range
from asd_agent.recordings import recorded_windows
from asd_agent.types import Description, Floats
from asd_agent.window import Windower

Progress = Callable[[float, str], None]  # share done, words

ENOUGH_S = 300.0  # below it the verdict says "little sound"
PARTS_LISTED = 20
NOT_RUNNING = "not running (far quieter)"
SPOILT_SHARE = 0.1  # of the windows: more is a concern
STATIONARY = 1.5  # blocks may differ by this many times what windows do, before the verdict calls it drift
PATIENCE_S = 30.0  # without a single frame from a live source


def describe_recordings(
    pipeline: Pipeline, machine: config.Machine, paths: Sequence[Path], progress: Progress = lambda *_: None
) -> list[Description]:
    """All windows of the recordings. Raises SourceError, naming the file: a calibration skips nothing silently."""
    files = recordings(paths)
    found: list[Description] = []
    for i, path in enumerate(files):
        progress(i / len(files), f"{path.name}, {len(found)} windows")
        found += [pipeline.describe(window) for window in recorded_windows(path, machine, pipeline.rates)]
    progress(1.0, f"{len(found)} windows")
    return found


def describe_live(
    pipeline: Pipeline, machine: config.Machine, duration_s: float, progress: Progress = lambda *_: None
) -> list[Description]:
    """Windows of the machine's own source until `duration_s` of sound is heard, or a finite source ends.

    Raises SourceError when the source delivers nothing.
    """
    found: list[Description] = []
    heard_s, last_frame = 0.0, time.monotonic()
    windower: Windower | None = None
    with open_source(machine.source, [machine.source.channel]) as source:
        while heard_s < duration_s:
            try:
                block = source.read(0.5)
            except EndOfSource:
                break
            if block is None:
                if time.monotonic() - last_frame > PATIENCE_S:
                    raise SourceError(f"{machine.id}: no sound for {PATIENCE_S:g} s: {source.status().detail}")
                continue
            last_frame = time.monotonic()
            windower = windower or Windower(block.rate_hz, machine.window_s, machine.hop_s, pipeline.rates)
            found += [pipeline.describe(window) for window in windower.push(block, machine.source.channel)]
            heard_s += len(block.samples) / block.rate_hz
            progress(min(heard_s / duration_s, 1.0), f"{len(found)} windows")
    return found


def build(machine: config.Machine, descriptions: Sequence[Description], pipeline: Pipeline, version: str) -> Baseline:
    """Fit banks, calibrations and fusion on the usable windows. Raises CalibrationError with what is missing."""
    usable, excluded, parts = _select(machine, descriptions)
    if len(usable) < FEWEST_WINDOWS:
        why = "".join(f"; {n} left out: {reason}" for reason, n in excluded.items())
        raise CalibrationError(
            f"{machine.id}: {len(usable)} usable windows of {len(descriptions)}, at least {FEWEST_WINDOWS} are needed, "
            f"{_seconds(machine, FEWEST_WINDOWS):.0f} s of sound{why}"
        )
    session = sessions([d.utc_s for d in usable], [d.origin for d in usable])
    block = blocks(session)
    detectors, arrays, z = _fit_detectors(machine, usable, pipeline, block, session)
    fusion = Fusion.fit(z, block, session)
    levels = np.array([d.quality.level_dbfs for d in usable])
    low, middle, high = np.percentile(levels, [2, 50, 98])
    manifest = Manifest(
        version=version,
        machine=machine.id,
        created_utc_s=time.time(),
        window_s=machine.window_s,
        hop_s=machine.hop_s,
        bundles={name: encoder.bundle.sha256 for name, encoder in pipeline.encoders.items()},
        detectors=detectors,
        fusion=fusion,
        chain=InputChain(
            source=machine.source.device_key(),
            level_dbfs=float(middle),
            level_low_dbfs=float(low),
            level_high_dbfs=float(high),
        ),
        report=_report(machine, usable, excluded, parts, fusion, [fusion.score(row) for row in z]),
    )
    return Baseline(manifest=manifest, arrays=arrays)


def _select(
    machine: config.Machine, descriptions: Sequence[Description]
) -> tuple[list[Description], dict[str, int], list[str]]:
    """Usable windows; reasons and places of the rest. Far quieter ones were recorded while the machine was off."""
    reasons = [", ".join(d.quality.reasons) for d in descriptions]
    levels = [d.quality.level_dbfs for d in descriptions if d.quality.assessable]
    if machine.quality.off_db is not None and levels:
        limit = float(np.percentile(levels, 75)) - machine.quality.off_db
        reasons = [
            reason or (NOT_RUNNING if d.quality.level_dbfs < limit else "")
            for reason, d in zip(reasons, descriptions, strict=True)
        ]
    usable = [d for d, reason in zip(descriptions, reasons, strict=True) if not reason]
    parts = [
        f"{d.origin or 'live'} {d.start_s:.1f}-{d.start_s + d.duration_s:.1f} s: {reason}"
        for d, reason in zip(descriptions, reasons, strict=True)
        if reason
    ]
    if len(parts) > PARTS_LISTED:
        parts = [*parts[:PARTS_LISTED], f"and {len(parts) - PARTS_LISTED} more windows"]
    return usable, dict(Counter(r for r in reasons if r)), parts


def _fit_detectors(
    machine: config.Machine, usable: Sequence[Description], pipeline: Pipeline, block: Labels, session: Labels
) -> tuple[dict[str, DetectorCalibration], Arrays, Floats]:
    """Detectors by name, the arrays of their banks, and z [n, detectors] of the windows on held-out blocks."""
    guard = math.ceil(machine.window_s / machine.hop_s) - 1
    detectors: dict[str, DetectorCalibration] = {}
    arrays: Arrays = {}
    columns = []
    for name, output in pipeline.outputs.items():
        x = np.stack([d.embeddings[name] for d in usable])
        held_out = leave_block_out(partial(bank.fit, output.distance), x, block, session, guard)
        log_score = LogScore.fit(held_out)
        columns.append([log_score.z(distance) for distance in held_out])
        detectors[name] = DetectorCalibration(kind=output.distance, log_score=log_score)
        arrays |= prefixed(name, bank.fit(output.distance, x).arrays() | Range.of(x).arrays())
    return detectors, arrays, np.array(columns).T


def _report(
    machine: config.Machine,
    usable: Sequence[Description],
    excluded: dict[str, int],
    parts: list[str],
    fusion: Fusion,
    held_out: Sequence[float],
) -> Report:
    seconds = _seconds(machine, len(usable))
    thresholds = Thresholds.of(machine.alarm, fusion.spread, machine.window_s, machine.hop_s)
    support = Support.of(thresholds, fusion.spread, held_out, machine.alarm, machine.window_s, machine.hop_s)
    total = len(usable) + sum(excluded.values())
    facts = [f"{len(usable)} of {total} windows are usable, {seconds / 60:.1f} min of sound"]
    concerns = []
    if seconds < ENOUGH_S:
        concerns.append(f"little sound: {ENOUGH_S / 60:.0f} min or more, over different days, are better")
    idle = sum(n for reason, n in excluded.items() if reason == NOT_RUNNING)
    if idle:
        facts.append(f"the machine was not running in {idle} windows; they were left out")
    spoilt = {reason: n for reason, n in excluded.items() if reason != NOT_RUNNING}
    if spoilt:
        words = f"{sum(spoilt.values())} windows were spoilt and left out: "
        words += ", ".join(f"{reason} {n}" for reason, n in spoilt.items())
        (concerns if sum(spoilt.values()) > total * SPOILT_SHARE else facts).append(words)
    if fusion.spread.between <= STATIONARY * fusion.spread.within:
        facts.append("the sound is stationary over the calibration")
    else:
        concerns.append(
            "the sound changed during the calibration (load, speed, a second machine?): record each state for longer"
        )
    if not support.supported:
        concerns.append(_support_words(support))
    if support.strays:
        facts.append(f"{support.strays} calibration windows exceed the limit themselves: listen to them")
    facts.append(
        f"expected: {support.per_month:.2g} days with a false alarm per month (90 % interval {support.low:.2g} to "
        f"{support.high:.2g}); the budget is {machine.alarm.false_alarms_per_month:g}"
    )
    facts.append(f"a window counts as anomalous from a score of {-math.log10(thresholds.alert_p):.2f}")
    return Report(
        windows=len(usable),
        seconds=seconds,
        excluded=excluded,
        excluded_parts=parts,
        support=support,
        budget_per_month=machine.alarm.false_alarms_per_month,
        facts=facts,
        concerns=concerns,
    )


def _support_words(support: Support) -> str:
    """What would support the budget."""
    if support.more_hours is None or support.more_days is None:
        return "more sound alone will not support the budget: mend what spoils single windows, or raise the budget"
    other = f" on {support.more_days} other day(s)" if support.more_days else ""
    return f"the budget is not supported yet: {support.more_hours:g} h more of normal sound{other} would"


def _seconds(machine: config.Machine, windows: int) -> float:
    return windows * machine.hop_s + machine.window_s - machine.hop_s
