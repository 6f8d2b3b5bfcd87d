"""Is a train of impacts really there? Its strength against that of decoy trains in the same envelope spectrum.

A decoy lies at an order where no part of the machine has one, is searched over the same range of slip, and gets the
same harmonics and sidebands: so whatever the spectrum looks like, the p-value needs no baseline. Decoys that would
share lines with the tested train (its harmonics and their shaft sidebands) are left out: of a real fault they are no
null.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from asd_agent.mechanism.envelope import Envelope, gain, mute, train_strength
from asd_agent.mechanism.lines import Train
from asd_agent.mechanism.speed import Speed
from asd_agent.types import Floats, Samples

DECOYS = 600
RANGE = (0.4, 2.4)  # of the tested order
HARMONICS = 3
TOP_TILES = 3
STANDS_OUT = 7.0  # whitened power of one line: p = 3e-3 for the best of three bins
COINCIDENCE_BINS = 3.5
TAIL_FROM = 0.8
PERIOD_LIMIT = 0.01


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one train in one window."""

    train: Train
    hz: float  # of the first line, as found
    order: float  # of the reference shaft
    p_value: float  # against decoys, full band; not corrected for the number of trains
    tiles_p: float  # the same on the best tiles, log envelope
    harmonics: int  # of 1..3, that stand out by themselves
    band_hz: tuple[float, float]  # the tiles that show it
    plain: float  # strength without sidebands


def test_trains(env: Envelope, trains: list[Train], speed: Speed, known_hz: Floats) -> list[Evidence]:
    """Every bearing line that can be told from shaft and mains lines, most significant first. Cage lines have no decoys
    (too few orders below the shaft) and are left to the baseline."""
    full = gain(mute(env.full, env.df_hz, known_hz))[None]
    tiles = gain(mute(env.tiles, env.df_hz, known_hz))
    found = []
    for train in trains:
        if train.kind == "ftf" or HARMONICS * train.order * speed.hz > env.top_hz:
            continue
        evidence = _test(env, full, tiles, train, speed, known_hz)
        if evidence is not None:
            found.append(evidence)
    return sorted(found, key=lambda e: e.p_value)


def _test(
    env: Envelope, full: Samples, tiles: Samples, train: Train, speed: Speed, known_hz: Floats
) -> Evidence | None:
    df = env.df_hz
    top = min(RANGE[1] * train.order, env.top_hz / HARMONICS / speed.hz)
    bases = np.arange(RANGE[0] * train.order * speed.hz, top * speed.hz, df / HARMONICS)
    spacing = None if train.spacing is None else train.spacing * speed.hz
    low, high = train.slip[0] - speed.tolerance, train.slip[1] + speed.tolerance
    own = (bases >= train.order * speed.hz * (1 + low)) & (bases <= train.order * speed.hz * (1 + high))
    own &= _clear_of(bases, known_hz, COINCIDENCE_BINS * df)
    if not own.any():
        return None  # hidden behind a shaft or mains line
    strength = train_strength(full, df, bases, spacing)[0]
    per_tile = train_strength(tiles, df, bases, spacing)
    best_tiles = np.sort(per_tile, axis=0)[-TOP_TILES:].mean(axis=0)
    at = int(np.flatnonzero(own)[np.argmax(strength[own])])
    hz = float(bases[at])
    tile_at = int(np.flatnonzero(own)[np.argmax(best_tiles[own])])
    decoys = _decoy_ranges(train, hz / speed.hz, bases / speed.hz, (low, high))
    lines = [env.full[_near(h * hz, df, len(env.full))].max() for h in range(1, HARMONICS + 1)]
    return Evidence(
        train,
        hz,
        hz / speed.hz,
        _p_value(float(strength[at]), _best_in(strength, decoys)),
        _p_value(float(best_tiles[tile_at]), _best_in(best_tiles, decoys)),
        int(np.count_nonzero(np.array(lines) > STANDS_OUT)),
        _band(env, per_tile[:, at]),
        float(train_strength(full, df, np.array([hz]), None)[0, 0]),
    )


def _near(hz: float, df_hz: float, count: int) -> slice:
    centre = round(hz / df_hz)
    return slice(max(0, min(centre - 1, count - 2)), min(count, centre + 2))


def _clear_of(bases: Floats, known_hz: Floats, margin_hz: float) -> npt.NDArray[np.bool_]:
    known = np.sort(known_hz)
    if not len(known):
        return np.ones(len(bases), bool)
    after = np.searchsorted(known, bases).clip(1, len(known) - 1) if len(known) > 1 else np.zeros(len(bases), int)
    nearest = np.minimum(np.abs(bases - known[after]), np.abs(bases - known[np.maximum(after - 1, 0)]))
    return np.asarray(nearest > margin_hz)


def _decoy_ranges(train: Train, found: float, orders: Floats, slip: tuple[float, float]) -> npt.NDArray[np.intp]:
    """[decoys, 2] index ranges of `orders`, each as wide (relatively) as the tested train's own."""
    centres = np.geomspace(orders[0] / (1 + slip[0]), orders[-1] / (1 + slip[1]), DECOYS)
    low, high = centres * (1 + slip[0]), centres * (1 + slip[1])
    step = train.spacing if train.kind == "bpfi" and train.spacing else 1.0
    own = np.array([k * found + m * step for k in range(1, 6) for m in range(-2, 3)])
    margin = 0.02
    shared = np.zeros(DECOYS, bool)
    for h in range(1, HARMONICS + 1):
        shared |= ((h * low[:, None] - margin < own) & (own < h * high[:, None] + margin)).any(axis=1)
    ranges = np.stack((np.searchsorted(orders, low), np.searchsorted(orders, high)), axis=1)[~shared]
    return np.asarray(ranges[ranges[:, 1] > ranges[:, 0]])


def _best_in(values: Samples, ranges: npt.NDArray[np.intp]) -> Samples:
    if not len(ranges):
        return np.zeros(0, np.float32)
    return np.array([values[a:b].max() for a, b in ranges])


def _p_value(value: float, null: Samples) -> float:
    """Rank among the decoys; beyond their 80 % quantile the exponential tail through their mean excess."""
    if len(null) < 30:
        return 1.0
    threshold = float(np.quantile(null, TAIL_FROM))
    if value <= threshold:
        return float((1 + np.count_nonzero(null >= value)) / (1 + len(null)))
    excess = float((null[null > threshold] - threshold).mean())
    return float(max((1 - TAIL_FROM) * np.exp(-(value - threshold) / max(excess, 1e-6)), 1e-12))


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


@dataclass(frozen=True, slots=True)
class Period:
    """Impacts at a rate that no configured part explains."""

    hz: float
    p_value: float  # corrected for all rates searched
    harmonics: int
    band_hz: tuple[float, float]
    strength: float  # on the full band, without sidebands


def explained_by(period: Period | None, evidence: Evidence, step_hz: float, df_hz: float) -> bool:
    """A bearing line that is only a harmonic or a sideband (at `step_hz`) of a stronger train is no evidence itself."""
    if period is None or period.strength <= evidence.plain:
        return False
    margin = 3 * df_hz
    if any(abs(ratio * evidence.hz - period.hz) < ratio * margin for ratio in (1, 2)):
        return False  # the same train
    lines = [k * period.hz + m * step_hz for k in (1, 2, 3) for m in (-2, -1, 0, 1, 2)]
    return any(abs(evidence.hz - line) < margin for line in lines)


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
