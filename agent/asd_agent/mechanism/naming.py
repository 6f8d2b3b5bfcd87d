"""Which component, if any, may be named: the decision over the readings of the joint test.

A component is named when its train is significant, better explained by it than by a train of unknown origin or by a
part of another family of lines, and no other component has support of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_ndtr

from asd_agent.mechanism.analyse import Analyser, Analysis
from asd_agent.mechanism.baseline import Verdict
from asd_agent.mechanism.combs import RATE_STEP, Spectra, unexplained
from asd_agent.mechanism.envelope import full_envelope, mean_envelope
from asd_agent.mechanism.evidence import KAPPA, LineEvidence, raw_power
from asd_agent.mechanism.families import explained_elsewhere
from asd_agent.mechanism.hypotheses import Reading, lattice, loudness, train_readings
from asd_agent.mechanism.lines import Train, speed_lines, synchronous_hz
from asd_agent.mechanism.shaft_speed import VAGUE, SpeedRange, believe
from asd_agent.reasons import Unnamed
from asd_agent.types import Floats, Samples

LIMIT = 0.01  # corrected for everything that was tested
CALM_LIMIT = 0.001  # where the sound is not impulsive: healthy bearings have faint lines too
IMPULSIVE = 3.0  # kurtosis of a band's envelope
MARGIN = 1.0  # ln e by which a component must beat a train of unknown origin
OWN_SUPPORT = 4.6  # ln e of another component beside the best one's lines: both are there
CLOSE = 1.5  # ln e: another component explains the same lines about as well
SAME_SPEED = 0.005
OWN_LINES = 0.0  # ln e of twice the ball spin itself beside the cage's lines
CAGE_FITS = 0.009  # every bearing's cage turns at about 0.4 x shaft: this one's must fit closely
FAR_LOUDER = 2.3  # ln power (10 dB): the other component's lines are those of a healthy bearing
GROWN = 3.0  # standard scores of a bearing's indicator above its baseline
MOST_GROWTH = 12.0  # ln e of growth at most: it tells that something grew there, the lines tell what
FEWEST_HARMONICS = 2
TOP_HARMONICS = 6.0
TOP_HZ = (500.0, 2000.0)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the joint test says of one set of spectra."""

    named: Reading | None
    why_unnamed: Unnamed | None = None  # None where a part is named
    candidates: tuple[Reading, ...] = ()  # best first: the named one and its runner-up, or equal ones

    @property
    def significant(self) -> bool:
        """A train was found; without candidates it is none of the parts'."""
        return self.why_unnamed is not Unnamed.NOTHING


@dataclass(frozen=True)
class Lines:
    """What is tested of a window, or of many added up: whitened power, 1 on average where there is only noise."""

    df_hz: float
    full: Samples  # [bins] envelope of the full band
    bands: Samples  # [bins] mean over narrow bands of their envelopes, for faint lines
    raw: Samples  # [bins] the vibration itself
    peaked: float  # kurtosis of the most impulsive band's envelope
    band_count: int
    heard_hz: float | None  # the shaft's speed by its comb of harmonics, when that is clear
    windows: int = 1

    @property
    def impulsive(self) -> bool:
        return self.peaked > IMPULSIVE


def lines_of(analyser: Analyser, whole: Analysis, speeds: SpeedRange) -> Lines:
    """Of one window that has been taken apart."""
    spectrum = whole.angular
    top = joint_top_hz(analyser.trains, speeds)
    bands, peaked = mean_envelope(spectrum, top)
    heard_hz = whole.speed.hz if whole.speed is not None and whole.speed.reliable else None
    full, raw = full_envelope(spectrum, top), raw_power(spectrum, raw_top_hz(analyser, speeds))
    return Lines(spectrum.df_hz, full, bands, raw, float(peaked.max()), len(peaked), heard_hz)


@dataclass(frozen=True)
class WindowSpectra:
    """The two envelopes that are tested."""

    full: Spectra
    bands: Spectra
    impulsive: bool
    heard_hz: float | None


def spectra_of(analyser: Analyser, lines: Lines) -> WindowSpectra:
    muted = mains_lines_hz(analyser, lines.df_hz * max(len(lines.full), len(lines.raw)))
    ratios = (1.0, *(s.ratio for s in analyser.config.shafts))
    raw = LineEvidence(lines.raw, lines.df_hz, muted, lines.windows)
    full = LineEvidence(lines.full, lines.df_hz, muted, lines.windows)
    bands = LineEvidence(lines.bands, lines.df_hz, muted, lines.windows * lines.band_count)
    speed = (ratios, speed_lines(analyser.config), synchronous_hz(analyser.config))
    return WindowSpectra(Spectra(full, raw, *speed), Spectra(bands, raw, *speed), lines.impulsive, lines.heard_hz)


def window_spectra(analyser: Analyser, whole: Analysis, speeds: SpeedRange) -> WindowSpectra:
    return spectra_of(analyser, lines_of(analyser, whole, speeds))


def joint_top_hz(trains: Sequence[Train], speeds: SpeedRange) -> float:
    highest = max(t.order for t in trains) * speeds.high_hz
    return float(np.clip(TOP_HARMONICS * highest, *TOP_HZ))


def raw_top_hz(analyser: Analyser, speeds: SpeedRange) -> float:
    """Above the shaft's harmonics and every line that tells its speed."""
    highest = (witness.line.hz(speeds.high_hz) for witness in speed_lines(analyser.config))
    return float(min(max(12 * speeds.high_hz, *highest, 0.0), 0.45 * analyser.rate_hz))


def mains_lines_hz(analyser: Analyser, top_hz: float) -> Floats:
    mains = analyser.config.mains_hz
    return np.zeros(0) if mains is None else np.arange(1.0, int(top_hz / mains) + 1) * mains


def diagnose_trains(
    analyser: Analyser, spectra: WindowSpectra, speeds: SpeedRange, verdict: Verdict | None, looks: int = 1
) -> Diagnosis:
    """Full band first; the mean over narrow bands where the sound is impulsive or a baseline shows growth. `looks`: how
    often the same growing sum was or may have been tested before."""
    test = _Test(analyser, spectra, speeds, verdict)
    found = test.run(spectra.full, looks)
    if found.significant or not (spectra.impulsive or verdict is not None):
        return found
    return test.run(spectra.bands, 2 * looks)


@dataclass(frozen=True)
class _Test:
    analyser: Analyser
    whole: WindowSpectra
    speeds: SpeedRange
    verdict: Verdict | None

    def run(self, spectra: Spectra, trials: int) -> Diagnosis:
        belief = believe(spectra, self.speeds, self.whole.heard_hz)
        spectra = spectra.without(belief.shaft_lines(spectra.envelope.top_hz))
        ranked = train_readings(spectra, self.analyser.trains, belief)
        ranked = sorted((self._with_growth(reading) for reading in ranked), key=lambda r: -r.log_e)
        if not ranked or not self._significant(ranked[0], trials * len(ranked)):
            return Diagnosis(None, Unnamed.NOTHING)
        best = ranked[0]
        if self.verdict is not None and not _grew(best, self.verdict):
            return Diagnosis(None, Unnamed.NOT_GROWN)
        if self.speeds.tolerance > VAGUE and not belief.supports(best.shaft_hz, SAME_SPEED):
            return Diagnosis(None, Unnamed.SPEED_UNKNOWN)
        free = unexplained(spectra, self.speeds.low_hz, self.speeds.high_hz)
        if (free is not None and best.log_e < free.log_e + MARGIN) or explained_elsewhere(spectra, best, belief):
            return Diagnosis(None, Unnamed.NO_PART)
        if _shared_with_others(best, self._calm, spectra.envelope.df_hz):
            return Diagnosis(None, Unnamed.SHARED, (best,))
        rivals = _rivals(spectra, ranked, self._calm)
        if rivals:
            return Diagnosis(None, Unnamed.SEVERAL, (best, *rivals))
        return Diagnosis(best, None, tuple(ranked[:2]))

    def _with_growth(self, reading: Reading) -> Reading:
        """Evidence joined: how far the train's own indicator is above its baseline is worth as much as its lines. The
        mean of two e-values is one, however they depend on each other."""
        z = growth(reading, self.verdict)
        if z is None or z < GROWN:
            return reading
        grown = min(float(np.log(KAPPA) + (KAPPA - 1) * (np.log(2) + log_ndtr(-z))), MOST_GROWTH)
        return replace(reading, log_e=float(np.logaddexp(reading.log_e, grown) - np.log(2)))

    @property
    def _calm(self) -> bool:
        return not self.whole.impulsive and self.verdict is None

    def _significant(self, reading: Reading, tested: int) -> bool:
        limit = CALM_LIMIT if self._calm else LIMIT
        return tested * reading.p_value < limit and reading.harmonics >= FEWEST_HARMONICS


def _shared_with_others(reading: Reading, calm: bool, df_hz: float) -> bool:
    """Lines of the cage come from every bearing; those of a rolling element are impulsive and not the cage's alone. The
    cage's rate is so low that the step in which it is read counts; it is read from two harmonics or more."""
    if reading.train.kind == "ftf":
        read_to = RATE_STEP / FEWEST_HARMONICS * df_hz / reading.hz
        return calm or abs(reading.order / reading.train.order - 1) > CAGE_FITS + read_to
    return reading.train.kind == "bsf2" and (calm or reading.own_log_e < OWN_LINES)


def _rivals(spectra: Spectra, ranked: Sequence[Reading], calm: bool) -> tuple[Reading, ...]:
    """Components that explain the same lines nearly as well (at another speed, or in an equal bearing), and those that
    are significant at the same speed without the best one's lines and not far quieter. A healthy bearing shows all its
    rates faintly: where the sound is calm, quieter ones count too."""
    best = ranked[0]
    rest = [r for r in ranked[1:] if not _same_part(r.train, best.train)]
    close = [r for r in rest if r.log_e > best.log_e - CLOSE]
    others = [r.train for r in rest if r not in close and r.log_e > OWN_SUPPORT]
    if not others:
        return tuple(close)
    left = spectra.without(lattice(best))
    own = train_readings(left, others, believe(left, SpeedRange.around(best.shaft_hz, SAME_SPEED)))
    own = [r for r in own if r.log_e > OWN_SUPPORT and r.harmonics >= FEWEST_HARMONICS]
    if not calm:
        own = [r for r in own if loudness(spectra, r) > loudness(spectra, best) - FAR_LOUDER]
    return (*close, *own)


def _same_part(one: Train, other: Train) -> bool:
    """Rolling elements show at twice their spin and at the cage's rate."""
    return one.bearing == other.bearing and {one.kind, other.kind} <= {"bsf2", "ftf"}


def _grew(reading: Reading, verdict: Verdict) -> bool:
    """The component's indicator, or, where the speed was not known to place it, the octave of its rate."""
    grown = growth(reading, verdict)
    return grown >= GROWN if grown is not None else periods_grew(verdict, reading.hz)


def growth(reading: Reading, verdict: Verdict | None) -> float | None:
    if verdict is None:
        return None
    found = [verdict.deviation(f"envelope.{reading.train.name}.{way}") for way in ("full", "tiles")]
    return max((d.z for d in found if d is not None), default=None)


def periods_grew(verdict: Verdict | None, hz: float) -> bool:
    """Without a baseline every clear period is worth a line; with one, only if its octave grew."""
    if verdict is None:
        return True
    for deviation in verdict.deviations:
        parts = deviation.name.split(".")
        if parts[0] == "envelope" and parts[-1] in ("line", "tile_line") and deviation.z >= GROWN:
            low, high = (float(v) for v in parts[1].split("-"))
            if any(low <= k * hz < high for k in (1, 2, 3)):
                return True
    return False
