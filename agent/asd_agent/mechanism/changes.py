"""Findings from growth against the baseline: lines of shafts, gears and motors; bands; single knocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asd_agent.mechanism import words
from asd_agent.mechanism.analyse import Analyser, Analysis
from asd_agent.mechanism.bands import LINE_NEIGHBOURHOOD_HZ, band_of
from asd_agent.mechanism.baseline import Deviation, Verdict
from asd_agent.mechanism.envelope import Envelope
from asd_agent.mechanism.finding import Finding, Rank
from asd_agent.mechanism.lines import LineGroup
from asd_agent.mechanism.orders import line_floor, peak_bin
from asd_agent.mechanism.spectrum import Floor, Spectrum
from asd_agent.types import Floats

LIMIT = 0.01
LINE_GREW_DB = 3.0
BAND_CHANGED_DB = 1.5
ELECTRICAL = "electrical supply"
SKIRT_DB = 10.0
FOREST_FROM = 5.0  # orders: lines of lower ones stand alone
FOREST_ORDERS = 3.0  # either side
FOREST_BINS = 4.0  # from a whole order: the taper's main lobe
FOREST_SHARE = 0.25  # of the line's power
FOREST_LINES, FOREST_DB = 3, 11.0  # so far above the floor, the median, that noise hardly has three
SECOND = 0.5  # a weaker change than half the strongest follows from it (levels are relative to the median band)
TONE_DB = 13.0
PULSATING = 25.0  # whitened power of a line; noise reaches about 10 in a window
KNOCK = 6.0  # the largest sub-frame's crest over the median one, in standard scores, for a single knock


def line_findings(analyser: Analyser, whole: Analysis, verdict: Verdict) -> list[Finding]:
    """Gears, blades, belts and rotors are components; shaft and mains are domains. Needs a reliable speed, except for
    mains lines."""
    shaft_hz = _shaft_hz(whole)
    grown = _grown(analyser, whole, verdict)
    shafts = [pair for pair in grown if _is_shaft(analyser, pair[0])]
    others = [pair for pair in grown if not _is_shaft(analyser, pair[0])]
    found = [_line_finding(group, d, verdict, shaft_hz, whole, others) for group, d in others[:3]]
    if shafts:
        found.append(_shaft_finding(shafts, verdict, shaft_hz or 0.0))
    return found


def explained_hz(analyser: Analyser, whole: Analysis, verdict: Verdict) -> list[float]:
    """Frequencies of all lines that grew: a tone there needs no finding of its own."""
    groups = [group for group, _ in _grown(analyser, whole, verdict)]
    return [line.hz(_shaft_hz(whole) or 0.0) for group in groups for line in group.lines]


def _shaft_hz(whole: Analysis) -> float | None:
    return whole.speed.hz if whole.speed is not None and whole.speed.reliable else None


def _grown(analyser: Analyser, whole: Analysis, verdict: Verdict) -> list[tuple[LineGroup, Deviation]]:
    """Groups of lines significantly over their baseline, the strongest first."""
    grown = []
    for group in analyser.groups:
        deviation = verdict.deviation(f"orders.{group.name}")
        if (
            deviation is None
            or not significant(deviation, verdict)
            or deviation.value - deviation.normal < LINE_GREW_DB
        ):
            continue
        placed = _shaft_hz(whole) is not None or not any(line.order for line in group.lines)
        if placed and not _in_a_forest(group, whole):
            grown.append((group, deviation))
    return sorted(grown, key=lambda pair: -pair[1].z)


def _in_a_forest(group: LineGroup, whole: Analysis) -> bool:
    """Several lines near by that neither the shaft nor the group's own sidebands explain are as strong: a tone that
    wanders, or a family of another origin."""
    spectrum, shaft_hz = whole.angular, _shaft_hz(whole)
    if shaft_hz is None or abs(group.lines[0].order) < FOREST_FROM:
        return False
    df, power = spectrum.df_hz, spectrum.power
    tolerance = whole.speed.tolerance if whole.speed is not None else 0.0
    bins = [at for line in group.lines if (at := peak_bin(spectrum, line, shaft_hz, tolerance)) is not None]
    own = power[bins]
    if not len(own):
        return False
    strongest, reach = bins[int(np.argmax(own))], round(FOREST_ORDERS * shaft_hz / df)
    near = np.arange(strongest - reach, strongest + reach + 1)
    near = near[(near > 2) & (near < len(power) - 2)]
    hz = near.astype(np.float64) * df
    free = _away(hz, shaft_hz, 0.0, df)
    if group.spacing is not None and group.carrier is not None:
        free &= _away(hz, abs(group.spacing.hz(shaft_hz)), group.carrier.hz(shaft_hz), df)
    peaks = near[free & (power[near] >= power[near - 1]) & (power[near] > power[near + 1])]
    above_noise = 10 ** (FOREST_DB / 10) * np.exp(line_floor(spectrum).at(peaks))
    least = np.maximum(above_noise, FOREST_SHARE * np.sort(own)[-min(2, len(own))])
    return bool(np.count_nonzero(power[peaks] > least) >= FOREST_LINES)


def _away(hz: Floats, step_hz: float, from_hz: float, df_hz: float) -> npt.NDArray[np.bool_]:
    """Further than a line's width from every multiple of a step."""
    steps = (hz - from_hz) / step_hz
    return np.asarray(np.abs(steps - np.rint(steps)) * step_hz > FOREST_BINS * df_hz)


def significant(deviation: Deviation, verdict: Verdict) -> bool:
    return deviation.z > 0 and deviation.p_value * len(verdict.deviations) < LIMIT


def _is_shaft(analyser: Analyser, group: LineGroup) -> bool:
    return group.component in {"shaft", *(s.name for s in analyser.config.shafts)}


def _line_finding(
    group: LineGroup,
    deviation: Deviation,
    verdict: Verdict,
    shaft_hz: float | None,
    whole: Analysis,
    grown: Sequence[tuple[LineGroup, Deviation]],
) -> Finding:
    line = group.lines[0]
    hz = line.hz(shaft_hz or 0.0)
    place = f"at {words.hz(hz)}"
    if group.spacing is not None and group.carrier is not None and shaft_hz is not None:
        step = abs(group.spacing.hz(shaft_hz))
        place = f"{words.hz(step)} apart around {words.hz(group.carrier.hz(shaft_hz))}"
    shared = _coincides(hz, shaft_hz, whole.spectrum.df_hz) if line.order == 0 else ""
    rank = Rank.DOMAIN if group.component == ELECTRICAL or shared else Rank.COMPONENT
    rise = deviation.value - deviation.normal
    second = next((d for g, d in grown if g is not group), None)
    what = "sidebands" if group.spacing is not None else "line"
    return Finding(
        rank,
        f"{group.component}: {what} {place} {words.decibels(rise)}, {group.meaning}{shared}",
        component=group.component if rank == Rank.COMPONENT else "",
        domain="electrical" if group.component == ELECTRICAL else group.name.rpartition(".")[2].rstrip("0123456789"),
        indicator=deviation.name,
        hz=hz,
        order=hz / shaft_hz if shaft_hz is not None else None,
        z=deviation.z,
        p_value=min(1.0, deviation.p_value * len(verdict.deviations)),
        harmonics=len(group.lines),
        change_db=rise,
        runner_up=f"{second.name} z {second.z:+.1f}" if second is not None else "",
    )


def _coincides(hz: float, shaft_hz: float | None, df_hz: float) -> str:
    """A mains line within three bins of a shaft harmonic cannot be told from it."""
    if shaft_hz is None:
        return ""
    k = round(hz / shaft_hz)
    return f" (not separable from {k} x shaft)" if k and abs(hz - k * shaft_hz) <= 3 * df_hz else ""


def _shaft_finding(grown: list[tuple[LineGroup, Deviation]], verdict: Verdict, shaft_hz: float) -> Finding:
    """One finding for the shaft: 1x alone is imbalance, 2x and 3x misalignment, many harmonics or halves looseness."""
    group, top = grown[0]
    orders = sorted(line.order for g, _ in grown for line in g.lines)
    meaning = group.meaning
    if len(grown) >= 4 or any(g.name.endswith("half") for g, _ in grown[:2]):
        meaning = "looseness or rub"
    names = ", ".join(g.name.rpartition(".")[2] for g, _ in grown[:4])
    rise = top.value - top.normal
    hz = group.lines[0].hz(shaft_hz)
    return Finding(
        Rank.DOMAIN,
        f"{group.component} {names} {words.decibels(rise)} at {words.hz(hz)}: {meaning}",
        domain="shaft",
        indicator=top.name,
        hz=hz,
        order=group.lines[0].order,
        z=top.z,
        p_value=min(1.0, top.p_value * len(verdict.deviations)),
        harmonics=len(orders),
        change_db=rise,
        runner_up=f"{grown[1][1].name} z {grown[1][1].z:+.1f}" if len(grown) > 1 else "",
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring bands that changed in the same direction."""

    band_hz: tuple[float, float]
    change_db: float
    top: Deviation


def band_findings(whole: Analysis, verdict: Verdict) -> list[Finding]:
    """The band that changed most, with its character: a tone, impacts, or broadband; a loss counts too."""
    levels = [d for d in verdict.deviations if d.name.endswith(".level") and band_of(d.name) is not None]
    found = [_band_finding(run, whole, verdict) for run in _runs(levels, verdict)]
    impacts = _impacts_without_level(verdict)
    if impacts is not None and not any(f.domain == "impacts" for f in found):
        found.append(impacts)
    found.sort(key=lambda f: -abs(f.z or 0.0))
    return [f for f in found[:2] if abs(f.z or 0.0) >= SECOND * abs(found[0].z or 0.0)]


def _runs(levels: list[Deviation], verdict: Verdict) -> list[_Run]:
    ordered = sorted(levels, key=lambda d: (band_of(d.name) or (0.0, 0.0))[0])
    runs: list[list[Deviation]] = []
    for deviation in ordered:
        if (
            deviation.p_value * len(verdict.deviations) >= LIMIT
            or abs(deviation.value - deviation.normal) < BAND_CHANGED_DB
        ):
            continue
        before = runs[-1][-1] if runs else None
        joins = before is not None and np.sign(before.z) == np.sign(deviation.z) and _touch(before, deviation)
        if joins:
            runs[-1].append(deviation)
        else:
            runs.append([deviation])
    return sorted((_run(members) for members in runs), key=lambda run: -abs(run.top.z))


def _touch(a: Deviation, b: Deviation) -> bool:
    first, second = band_of(a.name), band_of(b.name)
    return first is not None and second is not None and abs(first[1] - second[0]) <= 1.0


def _run(members: list[Deviation]) -> _Run:
    """Bands far below the strongest excess (or loss) are its skirts and are not named."""
    top = max(members, key=lambda d: abs(d.z))
    weight = [_excess_db(d) if d.z > 0 else d.normal - d.value for d in members]
    core = [d for d, w in zip(members, weight, strict=True) if w >= max(weight) - SKIRT_DB]
    lows, highs = zip(*(band_of(d.name) or (0.0, 0.0) for d in core), strict=True)
    change = float(np.mean([d.value - d.normal for d in core]))
    return _Run((min(lows), max(highs)), change, top)


def _excess_db(deviation: Deviation) -> float:
    """Level of what came on top of the normal: where it is loud, not where it was quiet before."""
    return float(10 * np.log10(10 ** (deviation.value / 10) - 10 ** (deviation.normal / 10)))


def _band_finding(run: _Run, whole: Analysis, verdict: Verdict) -> Finding:
    low, high = run.band_hz
    hz = None
    if run.change_db < 0:
        domain, character = (
            "loss",
            "less than normal: a blocked or missing source, or the microphone's position changed",
        )
    else:
        hz = _tone_hz(whole.spectrum, low, high)
        if hz is not None:
            domain, character = "tone", f"a tone at {words.hz(hz)}"
        elif _bursts_in(verdict, low, high):
            domain, character = "impacts", "impacts"
        elif _pulsates(whole.envelope, low, high):
            domain, character = "pulsation", "pulsating"
        else:
            domain, character = "broadband", "broadband: friction, flow or a leak"
    return Finding(
        Rank.BAND,
        f"{words.band(low, high)} {words.decibels(run.change_db)}, {character}",
        domain=domain,
        indicator=run.top.name,
        hz=hz,
        order=hz / whole.speed.hz if hz is not None and whole.speed is not None else None,
        band_hz=run.band_hz,
        z=run.top.z,
        p_value=min(1.0, run.top.p_value * len(verdict.deviations)),
        change_db=run.change_db,
    )


def _tone_hz(spectrum: Spectrum, low_hz: float, high_hz: float) -> float | None:
    """The strongest line of the band if it holds most of the band's power."""
    first, last = int(low_hz / spectrum.df_hz), int(high_hz / spectrum.df_hz) + 1
    power = spectrum.power[first:last]
    if len(power) < 8:
        return None
    at = int(np.argmax(power))
    width = max(3, round(LINE_NEIGHBOURHOOD_HZ / 2 / spectrum.df_hz))
    floor = Floor.of(spectrum.log_power[first:last], max(8, 2 * width)).at(np.array([at]))[0]
    share = power[max(0, at - width) : at + width + 1].sum() / power.sum()
    stands = 10 * np.log10(power[at]) - 10 / np.log(10) * floor > TONE_DB
    return float((first + at) * spectrum.df_hz) if share > 0.5 and stands else None


def _bursts_in(verdict: Verdict, low_hz: float, high_hz: float) -> bool:
    """By the spectral kurtosis of single bins: burst and negentropy of a band also rise when steady noise fills only a
    part of it."""
    for deviation in verdict.deviations:
        place = band_of(deviation.name)
        if not deviation.name.endswith(".spectral") or place is None or not significant(deviation, verdict):
            continue
        if place[0] < high_hz and place[1] > low_hz:
            return True
    return False


def _pulsates(env: Envelope, low_hz: float, high_hz: float) -> bool:
    """The envelope of most of the band has a line: what came is not steady noise."""
    lines = []
    for tile, values in enumerate(env.tiles):
        first, last = env.tile_band(tile)
        if min(last, high_hz) - max(first, low_hz) >= 0.5 * min(last - first, high_hz - low_hz):
            lines.append(float(values.max()))
    return bool(lines) and float(np.median(lines)) > PULSATING


def _impacts_without_level(verdict: Verdict) -> Finding | None:
    """Impulsiveness that grew in a band whose level did not."""
    for deviation in verdict.deviations:
        place = band_of(deviation.name)
        if place is None or deviation.name.rpartition(".")[2] not in ("burst", "spectral", "negentropy"):
            continue
        if significant(deviation, verdict):
            return Finding(
                Rank.BAND,
                f"impacts in {words.band(*place)}",
                domain="impacts",
                indicator=deviation.name,
                band_hz=place,
                z=deviation.z,
                p_value=min(1.0, deviation.p_value * len(verdict.deviations)),
            )
    return None


def knock_finding(whole: Analysis, verdict: Verdict) -> Finding | None:
    """One burst, not a train: the largest sub-frame stands out, the median one does not."""
    most, usual = verdict.deviation("shape.crest_max"), verdict.deviation("shape.crest")
    if most is None or usual is None or most.z < KNOCK or usual.z > 0.5 * most.z or not significant(most, verdict):
        return None
    at_s = int(np.argmax(np.abs(whole.spectrum.samples))) / whole.spectrum.rate_hz
    return Finding(
        Rank.DOMAIN,
        f"a single knock {at_s:.1f} s into the window",
        domain="transient",
        indicator=most.name,
        z=most.z,
        p_value=min(1.0, most.p_value * len(verdict.deviations)),
        at_s=at_s,
    )
