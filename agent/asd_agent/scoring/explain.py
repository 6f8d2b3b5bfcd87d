"""How a window, or the median of many, differs from calibration: as data, of which `decide.reason` makes sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from asd_agent.encode.deviation import level_change_db
from asd_agent.mechanism.finding import Finding, Rank
from asd_agent.reasons import Change, Deviation, SoundKind
from asd_agent.scoring.detectors import SUBTRACTED, EmbeddingDetector
from asd_agent.scoring.operating import OperatingState
from asd_agent.types import Description

DEVIATES_Z = 3.0  # of a detector, and of a value of its embedding
NARROW, WIDE = 1 / 3, 1 / 2  # octaves: a tone, a hiss
STEADY = 1 / 2  # of a rise of the mean power, in dB, is also there in the mean of the dB and between louder moments
MODULATED_DB = 6.0
HISS_HZ = 2000.0  # it reaches higher than this
AUDIBLE_DB = 3.0  # of a modulation
BESIDE = 1.2  # bands this close are one
ROUGH_HZ = 20.0  # faster pulsation is heard as roughness
MOST = 2  # changes that are told


def deviation(state: OperatingState, z: Mapping[str, float], description: Description, windows: int = 1) -> Deviation:
    """`z` of the detectors that decide; `windows`: the description is the median of so many."""
    top = max(z, key=lambda name: z[name])
    speaking = [d for d in state.detectors if isinstance(d, EmbeddingDetector) and d.output.axes]
    speaking = [d for d in speaking if d.name in description.embeddings]
    ranked = sorted((d for d in speaking if d.name in z), key=lambda d: -z[d.name])
    least = max(DEVIATES_Z, z[ranked[0].name] / 2) if ranked else 0.0
    found = [d.changes(description, windows) for i, d in enumerate(ranked) if i == 0 or z[d.name] >= least]
    told = _choice([_joined(changes) for changes in found])
    heard = [d for d in speaking if not d.name.endswith(SUBTRACTED)]
    return Deviation(kind=_kind(told, heard, description), changes=told, detector=top, z=z[top], windows=windows)


def with_finding(told: Deviation, finding: Finding) -> Deviation:
    """With what the mechanism analysis finds first; no band is told twice."""
    if finding.rank is Rank.UNKNOWN:
        return replace(told, advice=finding.advice)
    band = finding.band_hz
    left = tuple(c for c in told.changes if band is None or c.band_hz is None or not _overlap(c.band_hz, band))
    if finding.rank is not Rank.COMPONENT:  # else the band is where the component is heard
        left = () if band is not None else left[:1]
    return replace(told, finding=finding.words, component=finding.component, advice=finding.advice, changes=left)


def _joined(changes: Sequence[Change]) -> list[Change]:
    """Levels of neighbouring bands that changed in the same direction are one."""
    out: list[Change] = []
    for one in changes:
        beside = next((o for o in out if _beside(o, one)), None)
        if beside is None:
            out.append(one)
        else:
            edges = (*(beside.band_hz or ()), *(one.band_hz or ()))
            out[out.index(beside)] = replace(beside, band_hz=(min(edges), max(edges)))
    return out


def _beside(one: Change, other: Change) -> bool:
    if one.quantity != other.quantity or one.rates_hz or one.z * other.z < 0 or abs(other.z) < DEVIATES_Z:
        return False
    if one.band_hz is None or other.band_hz is None:
        return False
    return one.band_hz[0] < BESIDE * other.band_hz[1] and other.band_hz[0] < BESIDE * one.band_hz[1]


def _choice(found: Sequence[Sequence[Change]]) -> tuple[Change, ...]:
    """Of each detector's changes: the level of a band, and how it pulsates; else a second band, else how steady it is.
    The level of a wide band says more than that of a line within it."""
    every = [c for changes in found for c in changes if abs(c.z) >= DEVIATES_Z]
    every = [c for c in every if c.quantity != "modulation" or abs(c.change_db) >= AUDIBLE_DB]
    if not every:
        return next((tuple(changes[:1]) for changes in found if changes), ())
    levels = [c for c in every if c.quantity == "level"]
    modulations = [c for c in every if c.quantity == "modulation" and c.z > 0]
    modulations.sort(key=lambda c: c.band_hz is None)  # stable: that of a band says more than that of the whole sound
    if levels and levels[0].z > 0 and modulations:
        return levels[0], modulations[0]
    if levels:
        half_db = abs(levels[0].change_db) / 2  # one loud band makes others seem quieter
        second = [c for c in levels[1:] if not _overlap(c.band_hz, levels[0].band_hz) and abs(c.change_db) >= half_db]
        return (levels[0], *second[: MOST - 1])
    return tuple((modulations or every)[:1])


def _kind(told: Sequence[Change], detectors: Sequence[EmbeddingDetector], description: Description) -> SoundKind | None:
    """What the change is like; None where it is like nothing in particular."""
    level = next((c for c in told if c.quantity == "level"), None)
    modulation = next((c for c in told if c.quantity == "modulation" and c.change_db >= MODULATED_DB), None)
    rough = modulation is not None and modulation.rates_hz is not None and modulation.rates_hz[1] >= ROUGH_HZ
    if level is None:
        return None if modulation is None else SoundKind.RATTLE if rough else SoundKind.PULSATION
    if level.change_db < 0:
        return SoundKind.LOSS
    assert level.band_hz is not None
    rises = [db for d in detectors for db in level_change_db(d.output, d.difference(description), level.band_hz)]
    octaves = math.log2(level.band_hz[1] / level.band_hz[0])
    if rises and min(rises) < STEADY * max(rises):
        return SoundKind.KNOCK
    if octaves <= NARROW:
        return SoundKind.TONE
    hisses = octaves >= WIDE and level.band_hz[1] >= HISS_HZ
    return SoundKind.RATTLE if rough else SoundKind.LEAK if hisses else None


def _overlap(one: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    return one is None or other is None or (one[0] < other[1] and other[0] < one[1])
