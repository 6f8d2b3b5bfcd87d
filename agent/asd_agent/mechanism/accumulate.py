"""Windows add up: lines that are too faint for one window stand out of the mean of many.

Each window's spectra are brought to the same speed (so that lines add in orders) and summed; one test looks at the sum,
so its p-value needs no combination over windows. Who tests while the sum grows does so when the number of windows has
doubled, and pays k (k + 1) for the k-th look: the costs of all looks together stay below the limit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from asd_agent.mechanism import words
from asd_agent.mechanism.analyse import Analyser, Analysis
from asd_agent.mechanism.bearings import trains_finding
from asd_agent.mechanism.finding import Finding, Rank
from asd_agent.mechanism.hypotheses import Reading
from asd_agent.mechanism.naming import Diagnosis, Lines, diagnose_trains, lines_of, spectra_of
from asd_agent.mechanism.speed import Speed
from asd_agent.types import Floats, Samples

FAINT_DB = 4.0  # lines less than this above their background are found in many healthy bearings
PARTS = 8  # of the time so far: enough for a growth, and bounded memory


@dataclass(frozen=True)
class Part:
    """Neighbouring windows, added up."""

    lines: Lines
    first: int
    last: int


class Accumulation:
    """Of one machine in one state; windows of equal length and rate."""

    def __init__(self, analyser: Analyser, given: Speed | None = None) -> None:
        self.analyser = analyser
        self.speeds = analyser.speed_range(given)
        self.windows = 0
        self._parts: list[Part] = []
        self._reference_hz: float | None = None
        self._looks = 0

    def add(self, whole: Analysis) -> None:
        """A window that passed the gates; one of another length than the first is left out. Without a clear speed it is
        added as it is."""
        if not self.analyser.trains or (self._parts and whole.angular.df_hz != self._parts[0].lines.df_hz):
            return
        lines = lines_of(self.analyser, whole, self.speeds)
        if lines.heard_hz is not None:
            self._reference_hz = self._reference_hz or lines.heard_hz
            lines = _at_speed(lines, self._reference_hz)
        self._parts.append(Part(lines, self.windows, self.windows))
        self.windows += 1
        if len(self._parts) > PARTS:
            at = int(
                np.argmin(
                    [a.lines.windows + b.lines.windows for a, b in zip(self._parts, self._parts[1:], strict=False)]
                )
            )
            self._parts[at : at + 2] = [_join(self._parts[at], self._parts[at + 1])]

    @property
    def due(self) -> bool:
        """The number of windows is a power of two: time for the next look at a growing sum."""
        return self.windows > 0 and self.windows & (self.windows - 1) == 0

    def look(self) -> Diagnosis:
        """One of several looks at a growing sum, see `due`."""
        self._looks += 1
        return self.diagnose(self._looks * (self._looks + 1))

    def diagnose(self, looks: int = 1) -> Diagnosis:
        """Of all windows so far, without a baseline."""
        if not self._parts or not self.analyser.trains:
            return Diagnosis(None, False)
        return diagnose_trains(self.analyser, spectra_of(self.analyser, self._sum()), self.speeds, None, looks)

    def finding(self) -> Finding | None:
        """What all windows together show of the bearings, with its growth from the first to the last of them."""
        found = self.diagnose()
        if not found.candidates:
            return None
        finding = trains_finding(found, self.speeds, None, None)
        levels = self.growth_db(found.candidates[0])
        text = f"all {self.windows} windows together: {finding.words}"
        half = len(levels) // 2
        change = float(np.median(levels[-half:]) - np.median(levels[:half])) if half else None
        if change is not None:
            text += f"; its lines {words.decibels(change)} from the first half to the last"
        if np.median(levels) < FAINT_DB:
            return replace(finding, rank=Rank.BAND, component="", words=f"faint: {text}", change_db=change)
        return replace(finding, words=text, change_db=change)

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
