"""The blame ladder: component -> band -> domain -> unknown, each step only with its evidence.

A component is named only with a reliable speed and its geometry, two or more harmonics, a p-value corrected for all
that was tested, no coincidence with shaft or mains lines, and growth against the baseline where there is one.
"""

from __future__ import annotations

from dataclasses import replace

from asd_agent.config.kinematics import Mechanism
from asd_agent.mechanism import changes
from asd_agent.mechanism.analyse import Analyser
from asd_agent.mechanism.baseline import MechanismBaseline, Verdict
from asd_agent.mechanism.bearings import bearing_findings
from asd_agent.mechanism.finding import Finding, Rank
from asd_agent.mechanism.flow import flow_finding
from asd_agent.mechanism.gates import gates
from asd_agent.mechanism.spacings import spacing_finding
from asd_agent.mechanism.speed import NAMING_TOLERANCE, Speed
from asd_agent.types import Samples

ABNORMAL = 0.05  # a window less unusual than this has nothing to be blamed for, unless
ALONE = 0.001  # one indicator is this unusual, corrected for their number


def diagnose(
    samples: Samples,
    rate_hz: int,
    config: Mechanism,
    baseline: MechanismBaseline | None = None,
    speed: Speed | None = None,
) -> list[Finding]:
    """samples [n] of one window -> findings, the most telling first; empty when the window is normal or gated.

    Without a baseline only trains of impacts can be found: they carry their own null. Raises BaselineError when the
    baseline was made at another rate or with other kinematics.
    """
    if gates(samples, rate_hz) or (speed is not None and not speed.running):
        return []
    analyser = Analyser(config, rate_hz)
    whole = analyser.analyse(samples, speed)
    if baseline is None:
        return bearing_findings(analyser, whole, None, speed)
    verdict = baseline.judge(analyser.describe(samples, whole).values)
    if verdict.p_value is None or not (verdict.p_value < ABNORMAL or _one_stands_out(verdict)):
        return []
    found = bearing_findings(analyser, whole, verdict, speed)
    found += changes.line_findings(analyser, whole, verdict)
    explained = changes.explained_hz(analyser, whole, verdict)
    flow = flow_finding(analyser, whole, verdict)
    found += [flow] if flow is not None else []
    knock = changes.knock_finding(whole, verdict)
    for finding in changes.band_findings(whole, verdict):
        if not _same_tone(finding, explained, whole.spectrum.df_hz) and not _of_the_knock(finding, knock):
            found.append(finding)
    found += [knock] if knock is not None else []
    spacing = spacing_finding(whole, verdict) if not found else None
    found += [spacing] if spacing is not None else []
    found = sorted(found, key=_order) or [_unknown(verdict)]
    if found[0].rank is not Rank.COMPONENT and not found[0].advice:
        found[0] = replace(found[0], advice=_speed_advice(analyser, whole.speed))
    return found


def _one_stands_out(verdict: Verdict) -> bool:
    """A single line that came hardly moves the p-value of the whole window."""
    return bool(verdict.deviations) and verdict.deviations[0].p_value * len(verdict.deviations) < ALONE


def _of_the_knock(finding: Finding, knock: Finding | None) -> bool:
    """The band in which a single knock rings needs no finding of its own."""
    return knock is not None and finding.domain == "impacts" and abs(finding.z or 0.0) < abs(knock.z or 0.0)


def _same_tone(finding: Finding, explained_hz: list[float], df_hz: float) -> bool:
    """A tone that a line finding explains is not reported twice."""
    if finding.domain != "tone" or finding.hz is None:
        return False
    return any(abs(hz - finding.hz) <= 3 * df_hz + 0.002 * finding.hz for hz in explained_hz)


def _order(finding: Finding) -> tuple[int, bool, float]:
    """By rank; a train of impacts with its rate says more than the band it lies in."""
    return finding.rank, finding.harmonics < 2, -abs(finding.z or 0.0)


def _speed_advice(analyser: Analyser, speed: Speed | None) -> str:
    """Which speed would let the lines of the machine's parts be placed."""
    config = analyser.config
    parts = config.bearings or config.gears or config.blades or config.belts
    if not parts or (speed is not None and speed.reliable):
        return ""
    known = f"speed known to {100 * speed.tolerance:.2g} %" if speed is not None else "speed unknown"
    return f"{known}: give speed_topic or speed_tolerance {NAMING_TOLERANCE:g}"


def _unknown(verdict: Verdict) -> Finding:
    top = verdict.deviations[0] if verdict.deviations else None
    text = "unusual in no single part or band"
    if top is not None:
        text += f"; most in {top.name}"
    return Finding(
        Rank.UNKNOWN,
        text,
        indicator=top.name if top is not None else "",
        z=top.z if top is not None else None,
        p_value=verdict.p_value,
        runner_up=verdict.deviations[1].name if len(verdict.deviations) > 1 else "",
    )
