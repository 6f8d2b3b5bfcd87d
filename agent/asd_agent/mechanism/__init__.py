"""The parallel path beside the encoder: time, frequency and wavelet analysis of motor-driven machines.

Analyser(config, rate_hz).indicators(samples, speed) -> Indicators
MechanismBaseline.fit(windows, blocks).judge(indicators) -> Verdict
diagnose.diagnose(samples, rate_hz, config, baseline, speed) -> list[Finding]

Names load on first use: scipy is a fifth of the agent's memory, and many machines are calibrated without a mechanism.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asd_agent.mechanism.analyse import Analyser as Analyser
    from asd_agent.mechanism.analyse import Analysis as Analysis
    from asd_agent.mechanism.analyse import Indicators as Indicators
    from asd_agent.mechanism.baseline import FEWEST as FEWEST
    from asd_agent.mechanism.baseline import Deviation as Deviation
    from asd_agent.mechanism.baseline import MechanismBaseline as MechanismBaseline
    from asd_agent.mechanism.baseline import Verdict as Verdict
    from asd_agent.mechanism.finding import Finding as Finding
    from asd_agent.mechanism.finding import Rank as Rank
    from asd_agent.mechanism.speed import Speed as Speed

_WHERE = {
    "Analyser": "analyse",
    "Analysis": "analyse",
    "Deviation": "baseline",
    "FEWEST": "baseline",
    "Finding": "finding",
    "Indicators": "analyse",
    "MechanismBaseline": "baseline",
    "Rank": "finding",
    "Speed": "speed",
    "Verdict": "baseline",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
