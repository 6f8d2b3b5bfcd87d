"""A recording examined: windows, verdicts, findings; as data and as sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asd_agent.config.kinematics import Mechanism
from asd_agent.mechanism.accumulate import Accumulation
from asd_agent.mechanism.analyse import Analyser, Analysis, Indicators
from asd_agent.mechanism.baseline import Deviation, MechanismBaseline, Verdict
from asd_agent.mechanism.diagnose import diagnose
from asd_agent.mechanism.finding import Finding
from asd_agent.mechanism.gates import gates
from asd_agent.mechanism.speed import Speed
from asd_agent.mechanism.units import real
from asd_agent.types import Samples

MOST_FINDINGS_FROM = 6  # of the most unusual windows
STANDS_OUT = 4.0
FAMILY_TITLES = {
    "level": "level (not judged)",
    "shape": "shape of the waveform",
    "bands": "spectrum bands",
    "wavelet": "wavelet packets",
    "kurtosis": "spectral kurtosis",
    "cepstrum": "cepstrum",
    "envelope": "envelope spectrum",
    "orders": "lines of shaft, gears, mains",
}


@dataclass(frozen=True, slots=True)
class WindowReport:
    start_s: float
    indicators: Indicators
    verdict: Verdict | None  # None without a baseline


@dataclass(frozen=True, slots=True)
class Repeated:
    """A finding and how many of the examined windows show it."""

    finding: Finding
    windows: int
    of: int


@dataclass(frozen=True, slots=True)
class Report:
    origin: str
    rate_hz: int
    window_s: float
    windows: tuple[WindowReport, ...]
    findings: tuple[Repeated, ...]
    worst: int  # index of the most unusual window

    @property
    def worst_slice(self) -> slice:
        """Its samples in the recording: what to draw."""
        first = round(self.windows[self.worst].start_s * self.rate_hz)
        return slice(first, first + round(self.window_s * self.rate_hz))


def examine(
    samples: Samples,
    rate_hz: int,
    config: Mechanism,
    baseline: MechanismBaseline | None = None,
    speed: Speed | None = None,
    window_s: float = 10.0,
    origin: str = "",
    progress: Callable[[float], None] = lambda _: None,
    together: Accumulation | None = None,
) -> Report:
    """samples [n] of one channel, cut into windows side by side; a recording shorter than one is one window. Findings
    come from the most unusual windows, and those that more of them show come first. `progress` gets the share done;
    `together` gets every window that can be judged, for a finding over all recordings."""
    analyser = Analyser(config, rate_hz)
    cuts = _cuts(len(samples), round(window_s * rate_hz))
    windows: list[WindowReport] = []
    for first, last in cuts:
        progress(len(windows) / (len(cuts) + MOST_FINDINGS_FROM))
        indicators, whole = _window(analyser, samples[first:last], speed)
        verdict = baseline.judge(indicators.values) if baseline is not None else None
        if together is not None and whole is not None:
            together.add(whole, verdict)
        windows.append(WindowReport(first / rate_hz, indicators, verdict))
    order = sorted(range(len(windows)), key=lambda i: _unusual(windows[i]), reverse=True)
    looked_at = order[:MOST_FINDINGS_FROM]
    found = [diagnose(samples[slice(*cuts[i])], rate_hz, config, baseline, speed) for i in looked_at]
    return Report(origin, rate_hz, window_s, tuple(windows), _repeated(found), order[0])


def _window(analyser: Analyser, samples: Samples, speed: Speed | None) -> tuple[Indicators, Analysis | None]:
    """The second is None for a window that cannot be judged."""
    if gates(samples, analyser.rate_hz) or (speed is not None and not speed.running):
        return analyser.indicators(samples, speed), None
    whole = analyser.analyse(samples, speed)
    return analyser.describe(samples, whole), whole


def _cuts(total: int, width: int) -> list[tuple[int, int]]:
    if total <= width:
        return [(0, total)]
    return [(first, first + width) for first in range(0, total - width + 1, width)]


def _unusual(window: WindowReport) -> float:
    return window.verdict.z if window.verdict is not None and window.verdict.z is not None else -99.0


def _repeated(per_window: Sequence[Sequence[Finding]]) -> tuple[Repeated, ...]:
    kinds: dict[tuple[int, str, str, str], list[Finding]] = {}
    for findings in per_window:
        for finding in findings:
            where = "" if finding.component else finding.indicator
            kinds.setdefault((finding.rank, finding.component, finding.domain, where), []).append(finding)
    counted = [Repeated(members[0], len(members), len(per_window)) for members in kinds.values()]
    return tuple(sorted(counted, key=lambda r: (r.finding.rank, -r.windows)))


def as_data(report: Report) -> dict[str, Any]:
    """Plain data for --json; numbers are finite, absent ones null."""
    return {
        "file": report.origin,
        "rate_hz": report.rate_hz,
        "window_s": report.window_s,
        "findings": [_finding_data(r) for r in report.findings],
        "by_window": [_window_data(w) for w in report.windows],
    }


def _finding_data(repeated: Repeated) -> dict[str, Any]:
    return {**finding_data(repeated.finding), "windows": repeated.windows, "of": repeated.of}


def finding_data(finding: Finding) -> dict[str, Any]:
    return {**dataclasses.asdict(finding), "rank": finding.rank.name.lower()}


def _window_data(window: WindowReport) -> dict[str, Any]:
    speed, verdict = window.indicators.speed, window.verdict
    return {
        "start_s": window.start_s,
        "gates": list(window.indicators.gates),
        "shaft_hz": speed.hz if speed is not None else None,
        "speed_source": speed.source if speed is not None else None,
        "speed_confidence": speed.confidence if speed is not None else None,
        "p_value": verdict.p_value if verdict is not None else None,
        "families": dict(verdict.families) if verdict is not None else {},
        "notes": list(verdict.notes) if verdict is not None else [],
        "indicators": {name: _indicator_data(name, value, verdict) for name, value in window.indicators.values.items()},
    }


def _indicator_data(name: str, value: float, verdict: Verdict | None) -> dict[str, float | str]:
    """Value and normal value in real units; z and p of the logarithm that is judged."""
    number, unit = real(name, value)
    data: dict[str, float | str] = {"value": number, "unit": unit}
    deviation = verdict.deviation(name) if verdict is not None else None
    if deviation is None:
        return data
    return data | {"normal": real(name, deviation.normal)[0], "z": deviation.z, "p": deviation.p_value}


def standing_out(verdict: Verdict, everything: bool = False) -> list[tuple[str, list[Deviation]]]:
    """(family, its indicators), the most unusual family first: those that stand out and two of each family, or all."""
    found: dict[str, list[Deviation]] = {}
    for deviation in (*verdict.deviations, *verdict.level):
        members = found.setdefault(deviation.family, [])
        if everything or len(members) < 2 or abs(deviation.z) >= STANDS_OUT:
            members.append(deviation)
    return sorted(found.items(), key=lambda item: verdict.families.get(item[0], 1.0))


def finding_lines(report: Report) -> list[str]:
    """One line per finding, the most telling first; never empty."""
    lines = [
        f"{r.finding.rank.name.capitalize()}: {r.finding.line}"
        + (f"; in {r.windows} of {r.of} windows" if r.of > 1 else "")
        + (f"; next: {r.finding.runner_up}" if r.finding.runner_up else "")
        for r in report.findings
    ]
    if lines:
        return lines
    gates = {g for w in report.windows for g in w.indicators.gates}
    if all(w.indicators.gates for w in report.windows):
        return [f"Not assessable: {', '.join(sorted(gates))}"]
    if all(w.verdict is None for w in report.windows):
        return ["No periodic impacts found (without a baseline nothing else can be judged)"]
    lowest = min(
        (w.verdict.p_value for w in report.windows if w.verdict and w.verdict.p_value is not None), default=1.0
    )
    return [f"Nothing unusual (lowest p {np.format_float_positional(lowest, 2)})"]
