"""Windows add up: lines that are too faint for one window stand out of the mean of many.

Each window's spectra are brought to the same speed (so that lines add in orders) and summed; one test looks at the sum,
so its p-value needs no combination over windows. Who tests while the sum grows does so when the number of windows has
doubled, and pays k (k + 1) for the k-th look: the costs of all looks together stay below the limit.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from asd_agent.mechanism import words
from asd_agent.mechanism.analyse import Analyser, Analysis
from asd_agent.mechanism.baseline import Verdict
from asd_agent.mechanism.bearings import speed_advice, trains_finding
from asd_agent.mechanism.changes import line_findings
from asd_agent.mechanism.deviations import MeanDeviations
from asd_agent.mechanism.finding import Finding, Rank
from asd_agent.mechanism.flow import flow_finding, swelling
from asd_agent.mechanism.hypotheses import Reading
from asd_agent.mechanism.naming import Diagnosis, Lines, diagnose_trains, lines_of, spectra_of
from asd_agent.mechanism.speed import Speed
from asd_agent.mechanism.speed_track import SpeedTrack
from asd_agent.reasons import PartVerdict, Unnamed
from asd_agent.types import Floats, Samples

FAINT_DB = 4.0  # fainter lines are found in many healthy bearings: only growth against a baseline names one by them
RECENT = 3  # windows by whose majority a line stands alone
PARTS = 8  # of the time so far: enough for a growth, and bounded memory


@dataclass(frozen=True)
class Part:
    """Neighbouring windows, added up."""

    lines: Lines
    first: int
    last: int


class Accumulation:
    """Of one machine in one state; windows of equal length and rate."""

    def __init__(self, analyser: Analyser, given: Speed | None = None, looks: int = 0) -> None:
        """`looks`: those that were taken of the same alarm before, and are paid for."""
        self.analyser = analyser
        self.speeds = analyser.speed_range(given)
        self.windows = 0
        self._parts: list[Part] = []
        self._deviations = MeanDeviations()
        self._recent: deque[Analysis] = deque(maxlen=RECENT)
        self._speed = SpeedTrack()
        self._reference_hz: float | None = None
        self._looks = looks

    def add(self, whole: Analysis, verdict: Verdict | None = None) -> None:
        """A window that passed the gates, and what a baseline says of it; one of another length than the first is left
        out. Without a clear speed it is added as it is."""
        if self._recent and whole.angular.df_hz != self._recent[-1].angular.df_hz:
            return
        if self.analyser.trains:
            lines = replace(lines_of(self.analyser, whole, self.speeds), heard_hz=self._speed.follow(whole))
            if lines.heard_hz is not None:
                self._reference_hz = self._reference_hz or lines.heard_hz
                lines = _at_speed(lines, self._reference_hz)
            self._parts.append(Part(lines, self.windows, self.windows))
            if len(self._parts) > PARTS:
                self._merge()
        if verdict is not None:
            self._deviations.add(verdict)
        self._recent.append(whole)
        self.windows += 1

    def _merge(self) -> None:
        """The two neighbours with the fewest windows become one."""
        sizes = [part.lines.windows for part in self._parts]
        at = int(np.argmin(np.add(sizes[:-1], sizes[1:])))
        self._parts[at : at + 2] = [_join(self._parts[at], self._parts[at + 1])]

    @property
    def due(self) -> bool:
        """The number of windows is a power of two: time for the next look at a growing sum."""
        return self.windows > 0 and self.windows & (self.windows - 1) == 0

    def look(self) -> PartVerdict:
        """One of several looks at a growing sum, see `due`."""
        self._looks += 1
        trials = self._looks * (self._looks + 1)
        found = self.diagnose(trials)
        if found.named is not None and self._reference_hz is None:
            self._speed.learn(found.named.shaft_hz)
        finding = self._finding(found, trials)
        if finding is None:
            told = self._advice(found, trials)
            return PartVerdict(windows=self.windows, looks=self._looks, why_unnamed=found.why_unnamed, words=told)
        return PartVerdict(
            windows=self.windows,
            looks=self._looks,
            component=finding.component,
            why_unnamed=None if finding.component else found.why_unnamed or Unnamed.FAINT,
            candidates=tuple(dict.fromkeys(reading.train.part for reading in found.candidates)),
            p_value=finding.p_value,
            hz=finding.hz,
            order=finding.order,
            change_db=finding.change_db,
            levels_db=tuple(float(v) for v in self.growth_db(found.candidates[0]).round(1)) if found.candidates else (),
            words=_sentence(finding, self.windows),
        )

    def diagnose(self, looks: int = 1) -> Diagnosis:
        """What the trains of impacts of all windows so far say."""
        if not self._parts:
            return Diagnosis(None, Unnamed.NOTHING)
        spectra = spectra_of(self.analyser, self._sum())
        return diagnose_trains(self.analyser, spectra, self.speeds, self._deviations.verdict(), looks)

    def _advice(self, found: Diagnosis, looks: int) -> str:
        """Of a train that no part explains at the speeds that are allowed: which speed would."""
        speed_may_help = (Unnamed.NO_PART, Unnamed.SPEED_UNKNOWN)
        if found.why_unnamed not in speed_may_help or not self._parts:
            return ""
        spectra = spectra_of(self.analyser, self._sum())
        return speed_advice(self.analyser, spectra, self.speeds, self._deviations.verdict(), looks).lstrip("; ")

    def finding(self) -> Finding | None:
        """What all windows together show, with its growth from the first to the last of them."""
        finding = self._finding(self.diagnose())
        if finding is None:
            return None
        return replace(finding, words=f"all {self.windows} windows together: {finding.words}")

    def _finding(self, found: Diagnosis, looks: int = 1) -> Finding | None:
        if found.named is not None:
            return self._trains_finding(found)
        other = self._line_finding(looks)
        return other if other is not None or not found.candidates else self._trains_finding(found)

    def _trains_finding(self, found: Diagnosis) -> Finding:
        verdict = self._deviations.verdict()
        finding = trains_finding(found, self.speeds, verdict, None)
        levels = self.growth_db(found.candidates[0])
        text = finding.words
        half = len(levels) // 2
        change = float(np.median(levels[-half:]) - np.median(levels[:half])) if half else None
        if change is not None:
            text += f"; its lines {words.decibels(change)} from the first half to the last"
        if verdict is None and np.median(levels) < FAINT_DB:
            return replace(finding, rank=Rank.BAND, component="", words=f"faint: {text}", change_db=change)
        return replace(finding, words=text, change_db=change)

    def _line_finding(self, looks: int = 1) -> Finding | None:
        """Lines of gears, blades, belts and rotors, and noise that swells with vanes, above the baseline together."""
        verdict = self._deviations.verdict(looks)
        if verdict is None or not self._recent:
            return None
        flow = self._flow_finding(self._recent[-1], verdict)
        seen = [{f.indicator: f for f in line_findings(self.analyser, w, verdict) if f.component} for w in self._recent]
        often = {name for found in seen for name in found if 2 * sum(name in other for other in seen) > len(seen)}
        named = [next(found[name] for found in reversed(seen) if name in found) for name in often]
        named += [flow] if flow is not None else []
        return min(named, key=lambda finding: finding.p_value or 0.0, default=None)

    def _flow_finding(self, newest: Analysis, verdict: Verdict) -> Finding | None:
        if not self._parts or self._reference_hz is None:
            return flow_finding(self.analyser, newest, verdict)
        total = self._sum()
        return swelling(self.analyser, total.bands, total.df_hz, self._reference_hz, verdict)

    def growth_db(self, reading: Reading) -> Floats:
        """[parts] level over the background of a reading's first three harmonics, in the order of time."""
        hz = reading.hz * np.arange(1.0, 4.0)
        evidence = [spectra_of(self.analyser, part.lines).full.envelope for part in self._parts]
        return np.array([10 * np.log10(np.mean(lines.power(hz))) for lines in evidence])

    def _sum(self) -> Lines:
        total = self._parts[0]
        for part in self._parts[1:]:
            total = _join(total, part)
        return total.lines


def _sentence(finding: Finding, windows: int) -> str:
    """Of an alarm: "bearing DE outer race, from 14 windows: periodic impacts at ..." """
    told = f"from {words.count(windows, 'window')}: {finding.words}"
    return f"{finding.component}, {told}" if finding.component else told


def _at_speed(lines: Lines, reference_hz: float) -> Lines:
    """The spectra as they would be at another speed."""
    ratio = (lines.heard_hz or reference_hz) / reference_hz

    def moved(power: Samples) -> Samples:
        bins = np.arange(len(power))
        return np.asarray(np.interp(bins * ratio, bins, power, right=1.0), np.float32)

    return replace(lines, full=moved(lines.full), bands=moved(lines.bands), raw=moved(lines.raw), heard_hz=reference_hz)


def _join(one: Part, two: Part) -> Part:
    """The mean of two parts, weighed by their windows."""
    a, b = one.lines, two.lines
    share = a.windows / (a.windows + b.windows)

    def mean(x: Samples, y: Samples) -> Samples:
        return np.asarray(share * x + (1 - share) * y, np.float32)

    heard = a.heard_hz if a.heard_hz is not None else b.heard_hz
    peaked = share * a.peaked + (1 - share) * b.peaked
    joined = replace(
        a,
        full=mean(a.full, b.full),
        bands=mean(a.bands, b.bands),
        raw=mean(a.raw, b.raw),
        peaked=peaked,
        heard_hz=heard,
        windows=a.windows + b.windows,
    )
    return Part(joined, one.first, two.last)
