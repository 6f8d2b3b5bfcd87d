"""Bearing findings, and impacts at a period that no part explains."""

from __future__ import annotations

from asd_agent.mechanism import words
from asd_agent.mechanism.analyse import Analyser, Analysis
from asd_agent.mechanism.baseline import Verdict
from asd_agent.mechanism.decoys import Evidence, Period, explained_by, strength_z, strongest_period, test_trains
from asd_agent.mechanism.envelope import envelope
from asd_agent.mechanism.finding import Finding, Rank
from asd_agent.mechanism.spectrum import transform
from asd_agent.types import Floats

LIMIT = 0.01
GROWN = 3.0  # standard scores of a bearing's indicator above its baseline
FEWEST_HARMONICS = 2
FEWEST_IMPACTS = 5  # in half a window
REPEATED = 3.0  # standard scores of the rate in half a window


def bearing_findings(analyser: Analyser, whole: Analysis, verdict: Verdict | None) -> list[Finding]:
    """The part with the most significant train, when every condition for naming one holds; else the impacts by their
    rate and band alone."""
    env, speed = whole.envelope, whole.speed
    known = analyser.known_lines_hz(speed.hz if speed is not None and speed.reliable else None, env.top_hz)
    period = strongest_period(env, known)
    if speed is not None and speed.reliable and analyser.trains:
        evidence = test_trains(env, analyser.trains, speed, known)
        named = _named(analyser, evidence, period, env.df_hz, speed.hz, verdict)
        if named is not None:
            return [named]
    if period is None or not _periods_grew(verdict, period) or not _repeats(analyser, whole, period, known):
        return []
    return [_nameless(period, speed.hz if speed is not None and speed.reliable else None)]


def _named(
    analyser: Analyser,
    evidence: list[Evidence],
    period: Period | None,
    df_hz: float,
    shaft_hz: float,
    verdict: Verdict | None,
) -> Finding | None:
    if not evidence:
        return None
    best = min(evidence, key=lambda e: _corrected(e, len(evidence), verdict))
    p = _corrected(best, len(evidence), verdict)
    growth = _growth(best, verdict)
    step = shaft_hz * analyser.config.ratio(_shaft_of(analyser, best.train.bearing))
    if p >= LIMIT or best.harmonics < FEWEST_HARMONICS or explained_by(period, best, step, df_hz):
        return None
    if verdict is not None and (growth is None or growth < GROWN):
        return None
    others = [e for e in evidence if e is not best]
    second = min(others, key=lambda e: e.p_value) if others else None
    text = (
        f"periodic impacts at {words.hz(best.hz)} = {best.train.label} ({words.order(best.order)}), "
        f"{words.count(best.harmonics, 'harmonic')}, band {words.band(*best.band_hz)}, p {p:.0e}"
    )
    if growth is not None:
        text += f", z {growth:+.1f} against the baseline"
    return Finding(
        Rank.COMPONENT,
        text,
        component=best.train.part,
        domain="bearing",
        indicator=f"envelope.{best.train.name}",
        hz=best.hz,
        order=best.order,
        band_hz=best.band_hz,
        z=growth,
        p_value=p,
        harmonics=best.harmonics,
        runner_up=f"{second.train.label} p {second.p_value:.1g}" if second is not None else "",
    )


def _corrected(evidence: Evidence, tested: int, verdict: Verdict | None) -> float:
    """Bonferroni over the trains; the tiles count as a second method and only beside a baseline that shows growth:
    faint lines in a narrow band are found in many healthy bearings."""
    if verdict is None:
        return min(1.0, tested * evidence.p_value)
    return min(1.0, 2 * tested * min(evidence.p_value, evidence.tiles_p))


def _growth(evidence: Evidence, verdict: Verdict | None) -> float | None:
    if verdict is None:
        return None
    found = [verdict.deviation(f"envelope.{evidence.train.name}.{way}") for way in ("full", "tiles")]
    return max((d.z for d in found if d is not None), default=None)


def _shaft_of(analyser: Analyser, bearing: str) -> str:
    return next(b.shaft for b in analyser.config.bearings if b.name == bearing)


def _periods_grew(verdict: Verdict | None, period: Period) -> bool:
    """Without a baseline every clear period is worth a line; with one, only if its octave grew."""
    if verdict is None:
        return True
    for deviation in verdict.deviations:
        parts = deviation.name.split(".")
        if parts[0] == "envelope" and parts[-1] in ("line", "tile_line") and deviation.z >= GROWN:
            low, high = (float(v) for v in parts[1].split("-"))
            if any(low <= k * period.hz < high for k in (1, 2, 3)):
                return True
    return False


def _repeats(analyser: Analyser, whole: Analysis, period: Period, known_hz: Floats) -> bool:
    """Both halves of the window show the rate by themselves: a handful of irregular knocks always fits some rate."""
    x = whole.angular.samples
    half = len(x) // 2
    if half / analyser.rate_hz * period.hz < FEWEST_IMPACTS:
        return False
    parts = [transform(part, analyser.rate_hz) for part in (x[:half], x[half:])]
    envelopes = [envelope(part, whole.envelope.top_hz) for part in parts]
    return all(strength_z(env, period.hz, known_hz) > REPEATED for env in envelopes)


def _nameless(period: Period, shaft_hz: float | None) -> Finding:
    ratio = period.hz / shaft_hz if shaft_hz is not None else None
    relation = f" = {words.order(ratio)}" if ratio is not None else ""
    return Finding(
        Rank.BAND,
        f"periodic impacts at {words.hz(period.hz)}{relation}, {words.count(period.harmonics, 'harmonic')}, "
        f"band {words.band(*period.band_hz)}",
        domain="impacts",
        indicator="envelope",
        hz=period.hz,
        order=ratio,
        band_hz=period.band_hz,
        p_value=period.p_value,
        harmonics=period.harmonics,
    )
