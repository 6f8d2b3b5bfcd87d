"""Cavitation and separated flow: broadband noise that came, modulated at the rate at which vanes or blades pass.

Bubbles collapse, or eddies part, each time a vane passes: the noise has no lines of its own, its envelope has one at
the vane pass (Brennen, Hydrodynamics of Pumps, 1994). A line of the shaft alone in the envelope is no sign of it.
"""

from __future__ import annotations

import numpy as np

from asd_agent.config.kinematics import Blades
from asd_agent.mechanism import words
from asd_agent.mechanism.analyse import VANES_FROM_HZ, Analyser, Analysis
from asd_agent.mechanism.bands import band_of
from asd_agent.mechanism.baseline import Deviation, Verdict
from asd_agent.mechanism.changes import BAND_CHANGED_DB, PULSATING, significant
from asd_agent.mechanism.finding import Finding, Rank
from asd_agent.types import Floats, Samples

LOWEST_HZ = 500.0  # below it lie the machine's own lines
AMONG_SHAFT_LINES = 3.0  # power over the shaft's other lines in the envelope


def flow_finding(analyser: Analyser, whole: Analysis, verdict: Verdict) -> Finding | None:
    """The part whose vane pass modulates the noise that came, or by which noise that was there swells more than it did;
    None without a reliable speed."""
    if whole.speed is None or not whole.speed.reliable:
        return None
    came = _noise_that_came(analyser, whole, verdict, whole.speed.hz)
    if came is not None:
        return came
    lines = _modulation(whole, VANES_FROM_HZ, whole.spectrum.rate_hz / 2)
    return swelling(analyser, lines, whole.envelope.df_hz, whole.speed.hz, verdict) if lines is not None else None


def _noise_that_came(analyser: Analyser, whole: Analysis, verdict: Verdict, shaft_hz: float) -> Finding | None:
    grown = _grown_bands(verdict)
    if not grown:
        return None
    low, high = min(b[0] for b, _ in grown), max(b[1] for b, _ in grown)
    lines = _modulation(whole, low, high)
    if lines is None:
        return None
    top = max((d for _, d in grown), key=lambda d: d.z)
    for part in analyser.config.blades:
        hz = analyser.config.ratio(part.shaft) * shaft_hz
        own, others = _at_vane_pass(lines, whole.envelope.df_hz, part.count, hz)
        if own > PULSATING and own > AMONG_SHAFT_LINES * others:
            noise = f"noise at {words.band(low, high)} {words.decibels(top.value - top.normal)}"
            return _finding(part, part.count * hz, noise, (low, high), top, verdict)
    return None


def swelling(analyser: Analyser, lines: Samples, df_hz: float, shaft_hz: float, verdict: Verdict) -> Finding | None:
    """The part by whose vanes the noise swells more than it did: `lines` [bins] of the envelopes of its bands, of one
    window or of many."""
    for part in analyser.config.blades:
        hz = analyser.config.ratio(part.shaft) * shaft_hz
        grown = verdict.deviation(f"envelope.{part.name}.vanes")
        own, others = _at_vane_pass(lines, df_hz, part.count, hz)
        if grown is not None and significant(grown, verdict) and own > AMONG_SHAFT_LINES * others:
            return _finding(part, part.count * hz, "the noise", None, grown, verdict)
    return None


def _grown_bands(verdict: Verdict) -> list[tuple[tuple[float, float], Deviation]]:
    found = []
    for deviation in verdict.deviations:
        band = band_of(deviation.name)
        if band is None or not deviation.name.endswith(".level") or band[0] < LOWEST_HZ:
            continue
        if significant(deviation, verdict) and deviation.value - deviation.normal >= BAND_CHANGED_DB:
            found.append((band, deviation))
    return found


def _modulation(whole: Analysis, low_hz: float, high_hz: float) -> Samples | None:
    """[bins] median over the envelopes of the narrow bands that grew."""
    env = whole.envelope
    inside = [
        env.tiles[tile]
        for tile in range(len(env.tiles))
        if min(env.tile_band(tile)[1], high_hz) - max(env.tile_band(tile)[0], low_hz) > 0.3 * env.tile_hz
    ]
    return np.median(inside, axis=0) if inside else None


def _at_vane_pass(lines: Samples, df_hz: float, count: int, shaft_hz: float) -> tuple[float, float]:
    """(power of the line at the vane pass, of the strongest neighbour among the shaft's lines): what swells or knocks
    once per turn makes them all."""

    def power(multiples: Floats) -> Floats:
        bins = np.rint(multiples * shaft_hz / df_hz).astype(int)
        bins = bins[bins < len(lines) - 1]
        return np.asarray([lines[b - 1 : b + 2].max() for b in bins])

    own = power(np.array([float(count)]))
    others = power(np.array([k for k in range(count - 2, count + 3) if k > 0 and k != count], float))
    return float(own.max(initial=0.0)), float(others.max(initial=0.0))


def _finding(
    part: Blades, hz: float, noise: str, band_hz: tuple[float, float] | None, top: Deviation, verdict: Verdict
) -> Finding:
    text = (
        f"{part.name}: {noise}, modulated at the vane pass ({words.hz(hz)}, {part.count} vanes): cavitation or "
        "separated flow"
    )
    return Finding(
        Rank.COMPONENT,
        text,
        component=part.name,
        domain="flow",
        indicator=top.name,
        hz=hz,
        order=float(part.count),
        band_hz=band_hz,
        z=top.z,
        p_value=min(1.0, top.p_value * len(verdict.deviations)),
        harmonics=2,
        change_db=top.value - top.normal if band_hz is not None else None,
    )
