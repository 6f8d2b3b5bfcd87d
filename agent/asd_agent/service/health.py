"""Health of the measuring chain, apart from the machine's: NAMUR NE 107 classes with reasons.

failure                 the chain delivers nothing that can be judged
function_check          somebody is working on it: calibrating, or not calibrated yet
out_of_specification    it delivers, but not as it did at calibration (gain, clipping)
maintenance_required    it works, and something wants attention (disk, restarts, lag)
"""

from __future__ import annotations

import enum
from collections import deque

from asd_agent.baseline import InputChain
from asd_agent.capture import SourceStatus
from asd_agent.types import State, WindowResult

RECENT = 12  # windows that the chain is judged by
LEVEL_CHANGE_DB = 6.0  # beyond the calibrated range: somebody turned a knob or moved the microphone
BROKEN = {
    "silence",
    "flat",
    "dc",
    "nan",
}  # the rest of the reasons (clipping, gap, short) still deliver sound


class Health(enum.StrEnum):
    GOOD = "good"
    MAINTENANCE_REQUIRED = "maintenance_required"
    OUT_OF_SPECIFICATION = "out_of_specification"
    FUNCTION_CHECK = "function_check"
    FAILURE = "failure"


class ChainHealth:
    """Keeps the last windows' quality and judges the chain from them."""

    def __init__(self) -> None:
        self._recent: deque[WindowResult] = deque(maxlen=RECENT)

    def see(self, result: WindowResult) -> None:
        self._recent.append(result)

    def judge(self, source: SourceStatus, chain: InputChain | None) -> list[tuple[Health, str]]:
        """Findings about source, sound and level; empty = good. `chain` is what calibration saw."""
        if not source.available:
            return [(Health.FAILURE, f"source unavailable: {source.detail}")]
        findings: list[tuple[Health, str]] = []
        for reason, count in self._bad().items():
            health = Health.FAILURE if reason in BROKEN else Health.OUT_OF_SPECIFICATION
            findings.append((health, f"{reason} in {count} of the last {len(self._recent)} windows"))
        change = self._level_change(chain)
        if abs(change) >= LEVEL_CHANGE_DB:
            findings.append(
                (
                    Health.OUT_OF_SPECIFICATION,
                    f"the level is {change:+.0f} dB against calibration while the sound is as it was: "
                    "gain or microphone changed",
                )
            )
        return findings

    def _bad(self) -> dict[str, int]:
        """Reasons that spoil at least half of the recent windows."""
        counts: dict[str, int] = {}
        for result in self._recent:
            for reason in result.quality.reasons:
                counts[reason] = counts.get(reason, 0) + 1
        return {reason: n for reason, n in counts.items() if 2 * n >= len(self._recent)}

    def _level_change(self, chain: InputChain | None) -> float:
        """dB outside the calibrated range, by the median of the windows that sound normal; 0 inside."""
        levels = sorted(r.quality.level_dbfs for r in self._recent if r.state is State.NORMAL)
        if chain is None or len(levels) < RECENT // 2:
            return 0.0
        level = levels[len(levels) // 2]
        if level > chain.level_high_dbfs:
            return level - chain.level_high_dbfs
        return min(level - chain.level_low_dbfs, 0.0)


def worst(findings: list[tuple[Health, str]]) -> Health:
    """The most serious class of the findings."""
    order = list(Health)
    return max((health for health, _ in findings), key=order.index, default=Health.GOOD)
