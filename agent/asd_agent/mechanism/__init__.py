"""The parallel path beside the encoder: time, frequency and wavelet analysis of motor-driven machines.

Analyser(config, rate_hz).indicators(samples, speed) -> Indicators
MechanismBaseline.fit(windows, blocks).judge(indicators) -> Verdict
diagnose(samples, rate_hz, config, baseline, speed) -> list[Finding]
"""

from asd_agent.mechanism.analyse import Analyser, Analysis, Indicators
from asd_agent.mechanism.baseline import Deviation, MechanismBaseline, Verdict
from asd_agent.mechanism.diagnose import diagnose
from asd_agent.mechanism.finding import Finding, Rank
from asd_agent.mechanism.speed import Speed

__all__ = [
    "Analyser",
    "Analysis",
    "Deviation",
    "Finding",
    "Indicators",
    "MechanismBaseline",
    "Rank",
    "Speed",
    "Verdict",
    "diagnose",
]
