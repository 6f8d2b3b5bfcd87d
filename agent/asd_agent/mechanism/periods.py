"""Trains of impacts at a rate that no configured part explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from asd_agent.mechanism.envelope import Envelope, gain, mute, train_strength
from asd_agent.types import Floats, Samples

HARMONICS = 3
STANDS_OUT = 7.0  # whitened power of one line: p = 3e-3 for the best of three bins
PERIOD_LIMIT = 0.01


@dataclass(frozen=True, slots=True)
class Period:
    """Impacts at a rate that no configured part explains."""

    hz: float
    p_value: float  # corrected for all rates searched
    harmonics: int
    band_hz: tuple[float, float]
    strength: float  # on the full band, without sidebands


def strongest_period(env: Envelope, known_hz: Floats, low_hz: float = 3.0) -> Period | None:
    """The strongest train of impacts anywhere up to a third of the envelope spectrum; None when nothing stands out.

    Looked for on the full band and on the second-best tile: impacts are broad, while tones beat in one tile only.
    """
    df = env.df_hz
    bases = np.arange(low_hz, env.top_hz / HARMONICS, df / HARMONICS)
    if len(bases) < 300:
        return None
    full, tiles = mute(env.full, df, known_hz), mute(env.tiles, df, known_hz)
    on_full = train_strength(gain(full), df, bases, None)
    per_tile = train_strength(gain(tiles), df, bases, None)
    second = min(2, len(per_tile))
    on_tiles = np.sort(per_tile, axis=0)[-second]
    tile = int(np.argsort(per_tile[:, int(np.argmax(on_tiles))])[-second])
    for strength, lines in ((on_full, full), (on_tiles, tiles[tile])):
        at, p, harmonics = _stands_out(bases, strength, lines, df)
        if 2 * p < PERIOD_LIMIT and harmonics >= 2:
            return Period(float(bases[at]), 2 * p, harmonics, _band(env, per_tile[:, at]), float(on_full[at]))
    return None


def strength_z(env: Envelope, hz: float, known_hz: Floats) -> float:
    """Standard score of a train at one rate (within a bin) among all rates; full band or second-best tile."""
    df = env.df_hz
    bases = np.arange(2 * df, env.top_hz / HARMONICS, df / HARMONICS)
    here = np.abs(bases - hz) <= df
    if len(bases) < 100 or not here.any():
        return 0.0
    on_full = train_strength(gain(mute(env.full, df, known_hz)), df, bases, None)
    per_tile = train_strength(gain(mute(env.tiles, df, known_hz)), df, bases, None)
    on_tiles = np.sort(per_tile, axis=0)[-min(2, len(per_tile))]
    return max(_z(on_full, float(on_full[here].max())), _z(on_tiles, float(on_tiles[here].max())))


def _z(null: Samples, value: float) -> float:
    middle = float(np.median(null))  # a strong train fills many other rates with its harmonics: no quantile, no SD
    return (value - middle) / (1.4826 * float(np.median(np.abs(null - middle))) + 1e-6)


def _stands_out(bases: Floats, strength: Samples, lines: Samples, df_hz: float) -> tuple[int, float, int]:
    """(index of the strongest rate, its p for all rates searched, harmonics that stand out)."""
    at = int(np.argmax(strength))
    p = min(1.0, len(bases) / HARMONICS * float(ndtr(-_z(strength, float(strength[at])))))
    peaks = [lines[_near(h * float(bases[at]), df_hz, len(lines))].max() for h in range(1, HARMONICS + 1)]
    return at, p, int(np.count_nonzero(np.array(peaks) > STANDS_OUT))


def strongest_band(env: Envelope, hz: float) -> tuple[float, float]:
    """The band that shows a train at `hz` best."""
    return _band(env, train_strength(gain(env.tiles), env.df_hz, np.array([hz]), None)[:, 0])


def _near(hz: float, df_hz: float, count: int) -> slice:
    centre = round(hz / df_hz)
    return slice(max(0, min(centre - 1, count - 2)), min(count, centre + 2))


def _band(env: Envelope, strengths: Samples) -> tuple[float, float]:
    """The run of tiles around the best one that show at least 80 % of its strength."""
    best = int(np.argmax(strengths))
    first = last = best
    enough = 0.8 * strengths[best]
    while first > 0 and strengths[first - 1] >= enough:
        first -= 1
    while last < len(strengths) - 1 and strengths[last + 1] >= enough:
        last += 1
    return env.tile_band(first)[0], env.tile_band(last)[1]
