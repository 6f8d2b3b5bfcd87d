"""Cavitation and separated flow: broadband noise that came, modulated at the rate at which vanes or blades pass.

Bubbles collapse, or eddies part, each time a vane passes: the noise has no lines of its own, its envelope has one at
the vane pass (Brennen, Hydrodynamics of Pumps, 1994). A line of the shaft alone in the envelope is no sign of it.
"""

from __future__ import annotations

import numpy as np

from asd_agent.config.kinematics import Blades
from asd_agent.mechanism import words
from asd_agent.mechanism.analyse import Analyser, Analysis
from asd_agent.mechanism.bands import band_of
from asd_agent.mechanism.baseline import Deviation, Verdict
from asd_agent.mechanism.changes import BAND_CHANGED_DB, PULSATING, significant
from asd_agent.mechanism.finding import Finding, Rank
from asd_agent.types import Floats, Samples

LOWEST_HZ = 500.0  # below it lie the machine's own lines
AMONG_SHAFT_LINES = 3.0  # power over the shaft's other lines in the envelope


def flow_finding(analyser: Analyser, whole: Analysis, verdict: Verdict) -> Finding | None:
    """The part whose vane pass modulates the noise that came; None without a reliable speed."""
    if whole.speed is None or not whole.speed.reliable:
        return None
    grown = _grown_bands(verdict)
    if not grown:
        return None
    low, high = min(b[0] for b, _ in grown), max(b[1] for b, _ in grown)
    lines = _modulation(whole, low, high)
    if lines is None:
        return None
    for part in analyser.config.blades:
        ratio = analyser.config.ratio(part.shaft) * whole.speed.hz
        if _at_vane_pass(lines, whole.envelope.df_hz, part.count, ratio):
            return _finding(
                part, part.count * ratio, (low, high), max((d for _, d in grown), key=lambda d: d.z), verdict
            )
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


def _at_vane_pass(lines: Samples, df_hz: float, count: int, shaft_hz: float) -> bool:
    def power(multiples: Floats) -> Floats:
        bins = np.rint(multiples * shaft_hz / df_hz).astype(int)
        bins = bins[bins < len(lines) - 1]
        return np.asarray([lines[b - 1 : b + 2].max() for b in bins])

    own = power(np.array([float(count)]))
    others = power(np.array([k for k in range(1, 2 * count) if k != count], float))
    return bool(len(own) and own[0] > PULSATING and own[0] > AMONG_SHAFT_LINES * others.max(initial=0.0))


def _finding(part: Blades, hz: float, band_hz: tuple[float, float], top: Deviation, verdict: Verdict) -> Finding:
    rise = top.value - top.normal
    text = (
        f"{part.name}: noise at {words.band(*band_hz)} {words.decibels(rise)}, modulated at the vane pass "
        f"({words.hz(hz)}, {part.count} vanes): cavitation or separated flow"
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
        change_db=rise,
    )
