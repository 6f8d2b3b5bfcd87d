"""Bearing findings in words, and impacts at a period that no part explains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asd_agent.mechanism import words
from asd_agent.mechanism.analyse import Analyser, Analysis
from asd_agent.mechanism.baseline import Verdict
from asd_agent.mechanism.envelope import envelope
from asd_agent.mechanism.finding import Finding, Rank
from asd_agent.mechanism.hypotheses import Reading
from asd_agent.mechanism.naming import (
    FAR_LOUDER,
    Diagnosis,
    WindowSpectra,
    diagnose_trains,
    growth,
    periods_grew,
    window_spectra,
)
from asd_agent.mechanism.periods import Period, strength_z, strongest_band, strongest_period
from asd_agent.mechanism.shaft_speed import SpeedRange
from asd_agent.mechanism.spectrum import transform
from asd_agent.mechanism.speed import Speed
from asd_agent.types import Floats

FEWEST_IMPACTS = 5  # in half a window
REPEATED = 3.0  # standard scores of the rate in half a window
HINT_TOLERANCE = 0.2  # how far off a configured speed is tried before impacts are called unexplained


def bearing_findings(
    analyser: Analyser, whole: Analysis, verdict: Verdict | None, given: Speed | None = None
) -> list[Finding]:
    """The component whose train the window shows; else those that explain it together; else the impacts by their rate
    and band alone, with the speed that would explain them."""
    env = whole.envelope
    shaft_hz = whole.speed.hz if whole.speed is not None and whole.speed.reliable else None
    known = analyser.known_lines_hz(shaft_hz, env.top_hz)
    speeds = analyser.speed_range(given)
    if analyser.trains:
        spectra = window_spectra(analyser, whole, speeds)
        found = diagnose_trains(analyser, spectra, speeds, verdict)
        if found.candidates:
            return [trains_finding(found, speeds, verdict, strongest_band(env, found.candidates[0].hz))]
        behind = _behind_shaft(analyser, spectra, verdict)
        if behind is not None:
            return [behind]
    period = strongest_period(env, known)
    if period is None or not periods_grew(verdict, period.hz) or not _repeats(analyser, whole, period, known):
        return []
    return [_nameless(period, shaft_hz, _hint(analyser, whole, speeds, verdict))]


def trains_finding(
    found: Diagnosis, speeds: SpeedRange, verdict: Verdict | None, band_hz: tuple[float, float] | None
) -> Finding:
    """Of a diagnosis with candidates."""
    if found.named is not None:
        return _named(found, verdict, band_hz)
    return _several(found.candidates, speeds, band_hz)


def _named(found: Diagnosis, verdict: Verdict | None, band_hz: tuple[float, float] | None) -> Finding:
    best = found.candidates[0]
    second = found.candidates[1] if len(found.candidates) > 1 else None
    grown = growth(best, verdict)
    p = _corrected(best, len(found.candidates))
    sidebands = f", sidebands at the {best.pattern.name}" if best.pattern.name else ""
    band = f", band {words.band(*band_hz)}" if band_hz is not None else ""
    text = (
        f"periodic impacts at {words.hz(best.hz)} = {best.train.label} ({words.order(best.order)}, shaft "
        f"{words.hz(best.shaft_hz)}), {words.count(best.harmonics, 'harmonic')}{sidebands}{band}, p {p:.0e}"
    )
    return Finding(
        Rank.COMPONENT,
        text,
        component=best.train.part,
        domain="bearing",
        indicator=f"envelope.{best.train.name}",
        hz=best.hz,
        order=best.order,
        band_hz=band_hz,
        z=grown,
        p_value=p,
        harmonics=best.harmonics,
        sidebands_hz=best.pattern.spacing * best.shaft_hz or None,
        runner_up=f"{second.train.label} p {min(1.0, second.p_value):.1g}" if second is not None else "",
    )


def _corrected(reading: Reading, tested: int) -> float:
    return float(min(1.0, tested * reading.p_value))


def _several(candidates: Sequence[Reading], speeds: SpeedRange, band_hz: tuple[float, float] | None) -> Finding:
    """Names all that explain the impacts, and what would tell them apart."""
    best = candidates[0]
    each = [
        f"{r.train.label} ({words.order(r.order)}, shaft {words.hz(r.shaft_hz)}, p {r.p_value:.0e})" for r in candidates
    ]
    apart = max(abs(r.shaft_hz / best.shaft_hz - 1) for r in candidates) / 2
    if len(candidates) == 1:
        text = f"lines at {each[0]}, which other parts of a bearing share"
    else:
        text = f"periodic impacts that several parts explain: {' or '.join(each)}"
    if apart > 0.003:
        text += f"; a speed known to within {100 * apart:.1f} % tells them apart (now {100 * speeds.tolerance:.1f} %)"
    return Finding(
        Rank.BAND,
        text,
        domain="bearing",
        indicator="envelope",
        hz=best.hz,
        order=best.order,
        band_hz=band_hz,
        p_value=_corrected(best, len(candidates)),
        harmonics=best.harmonics,
        runner_up=f"{candidates[1].train.label} p {candidates[1].p_value:.1g}" if len(candidates) > 1 else "",
    )


def _behind_shaft(analyser: Analyser, spectra: WindowSpectra, verdict: Verdict | None) -> Finding | None:
    """A train that may lie on a multiple of the shaft's speed, where the window is too short to tell them apart."""
    shaft_hz, env = spectra.heard_hz, spectra.full.envelope
    if shaft_hz is None:
        return None
    for train in analyser.trains:
        multiple = round(train.order)
        low, high = train.order * (1 + train.slip[0]), train.order * (1 + train.slip[1])
        hz = multiple * shaft_hz
        if train.kind == "ftf" or not low * shaft_hz - env.df_hz <= hz <= high * shaft_hz + env.df_hz:
            continue
        others = [k * shaft_hz for k in range(1, 3 * multiple) if k % multiple]
        lead = np.log(env.power(hz * np.arange(1.0, 4.0))).mean() - np.log(env.power(np.array(others))).mean()
        if env.stands_out(hz * np.arange(1.0, 4.0)).all() and lead > FAR_LOUDER and periods_grew(verdict, hz):
            apart = abs(train.order - multiple) * shaft_hz
            longer = f"; windows of {np.ceil(3 / apart):.0f} s tell them apart" if apart > 1 / 60 else ""
            text = (
                f"impacts at {words.hz(hz)}: {multiple} x shaft or {train.label} ({words.order(train.order)}), too "
                f"close to tell apart in {1 / env.df_hz:.0f} s{longer}"
            )
            return Finding(Rank.BAND, text, domain="impacts", indicator="envelope", hz=hz, order=float(multiple))
    return None


def _hint(analyser: Analyser, whole: Analysis, speeds: SpeedRange, verdict: Verdict | None) -> str:
    """Which speed would make the impacts those of a part, and how to allow it."""
    if not analyser.trains:
        return ""
    wide = speeds.widened(HINT_TOLERANCE)
    return speed_advice(analyser, window_spectra(analyser, whole, wide), speeds, verdict)


def speed_advice(
    analyser: Analyser, spectra: WindowSpectra, speeds: SpeedRange, verdict: Verdict | None, looks: int = 1
) -> str:
    """ "; BPFO of DE if the shaft turned at ...": which speed beyond `speeds` would let a part be named; else empty."""
    nominal = speeds.middle_hz
    if speeds.tolerance > HINT_TOLERANCE:
        return "; the shaft's speed is unknown: shaft_hz or speed_topic would let a part be named"
    named = diagnose_trains(analyser, spectra, speeds.widened(HINT_TOLERANCE), verdict, looks).named
    if named is None or speeds.low_hz <= named.shaft_hz <= speeds.high_hz:
        return ""
    off = named.shaft_hz / nominal - 1
    return (
        f"; {named.train.label} if the shaft turned at {words.hz(named.shaft_hz)}, {abs(100 * off):.1f} % "
        f"{'above' if off > 0 else 'below'} the {words.hz(nominal)} configured: speed_tolerance "
        f"{np.ceil(100 * abs(off)) / 100:.2f} would allow this name"
    )


def _repeats(analyser: Analyser, whole: Analysis, period: Period, known_hz: Floats) -> bool:
    """Both halves of the window show the rate by themselves: a handful of irregular knocks always fits some rate."""
    x = whole.angular.samples
    half = len(x) // 2
    if half / analyser.rate_hz * period.hz < FEWEST_IMPACTS:
        return False
    parts = [transform(part, analyser.rate_hz) for part in (x[:half], x[half:])]
    envelopes = [envelope(part, whole.envelope.top_hz) for part in parts]
    return all(strength_z(env, period.hz, known_hz) > REPEATED for env in envelopes)


def _nameless(period: Period, shaft_hz: float | None, hint: str) -> Finding:
    ratio = period.hz / shaft_hz if shaft_hz is not None else None
    relation = f" = {words.order(ratio)}" if ratio is not None else ""
    return Finding(
        Rank.BAND,
        f"periodic impacts at {words.hz(period.hz)}{relation}, {words.count(period.harmonics, 'harmonic')}, "
        f"band {words.band(*period.band_hz)}{hint}",
        domain="impacts",
        indicator="envelope",
        hz=period.hz,
        order=ratio,
        band_hz=period.band_hz,
        p_value=period.p_value,
        harmonics=period.harmonics,
    )
