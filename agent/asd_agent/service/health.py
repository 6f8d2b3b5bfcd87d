"""Health of the signal chain, apart from the machine's: NAMUR NE 107 classes with reasons.

failure                 the chain delivers nothing that can be judged
function_check          somebody is working on it: calibrating, or not calibrated yet
out_of_specification    it delivers, but not as it did at calibration (gain, clipping)
maintenance_required    it works, and something wants attention (disk, restarts, lag)
"""

from __future__ import annotations

import enum
from collections import deque
from statistics import median

from asd_agent.capture import SourceStatus
from asd_agent.types import Fingerprint, State, WindowResult
from asd_agent.windowing.signal_chain import LOST, SignalChain, compare, lost_words

PRINTS, FEWEST_PRINTS = 7, 3  # fingerprints, one a minute
DC_CHANGE = 0.02  # of full scale
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
        self._prints: deque[tuple[str, Fingerprint]] = deque(maxlen=PRINTS)  # and the operating state

    def see(self, result: WindowResult, fingerprint: Fingerprint | None = None) -> None:
        """Every window; `fingerprint` of one now and then."""
        self._recent.append(result)
        if fingerprint is not None:
            self._prints.append((result.operating, fingerprint))

    def judge(self, source: SourceStatus, chain: SignalChain | None) -> list[tuple[Health, str]]:
        """Findings about source, sound and level; empty = good. `chain` is what calibration saw."""
        if not source.available:
            return [(Health.FAILURE, f"source unavailable: {source.detail}")]
        findings: list[tuple[Health, str]] = []
        for reason, count in self._bad().items():
            health = Health.FAILURE if reason in BROKEN else Health.OUT_OF_SPECIFICATION
            findings.append((health, f"{reason} in {count} of the last {len(self._recent)} windows"))
        outside, change = self._level_change(chain)
        if abs(outside) >= LEVEL_CHANGE_DB:
            direction = "above" if change > 0 else "below"
            words = f"level {abs(change):.0f} dB {direction} calibration while the sound is as it was: "
            findings.append((Health.OUT_OF_SPECIFICATION, words + "gain or microphone position changed"))
        if chain is not None:
            changed = self._not_judged() or self._changed(chain)
            findings += [(Health.OUT_OF_SPECIFICATION, words) for words in changed]
        return findings

    def _not_judged(self) -> list[str]:
        """Why at least half of the recent windows, which can be heard, say nothing of the machine."""
        words = [r.reason for r in self._recent if r.reason.startswith(LOST)]
        return words[-1:] if 2 * len(words) >= len(self._recent) else []

    def _changed(self, learnt: SignalChain) -> list[str]:
        """What most of the last fingerprints show: a change that lasts. One by one they are no proof."""
        prints = [fingerprint for _, fingerprint in self._prints]
        enough = len(prints) // 2 + 1
        if len(prints) < FEWEST_PRINTS:
            return []
        words: list[str] = []
        rates = [f.rate_hz for f in prints if learnt.rate_hz and f.rate_hz != learnt.rate_hz]
        if len(rates) >= enough:
            words.append(f"the sound comes at {rates[-1]} Hz, in calibration at {learnt.rate_hz} Hz")
        compared = [compare(f, learnt.floors[s], learnt.edge_hz) for s, f in self._prints if s in learnt.floors]
        lost = [c.lost_hz for c in compared if c is not None and c.lost_hz is not None]
        if len(lost) >= enough:
            words.append(lost_words(median(lost), learnt))
        dc = [f.dc for f in prints if abs(f.dc - learnt.dc) >= DC_CHANGE]
        if len(dc) >= enough:
            words.append(f"DC of {median(dc):+.3f} of full scale, in calibration {learnt.dc:+.3f}: the sound card?")
        return words

    def _bad(self) -> dict[str, int]:
        """Reasons that spoil at least half of the recent windows."""
        counts: dict[str, int] = {}
        for result in self._recent:
            for reason in result.quality.reasons:
                counts[reason] = counts.get(reason, 0) + 1
        return {reason: n for reason, n in counts.items() if 2 * n >= len(self._recent)}

    def _level_change(self, chain: SignalChain | None) -> tuple[float, float]:
        """dB outside the calibrated range (0 inside), and from its middle, by the median of the windows that sound
        normal. Each state has a range of its own; that the machine is off says little of a gain."""
        if chain is None:
            return 0.0, 0.0
        changes = sorted(
            _outside(
                r.quality.level_dbfs, *chain.levels.get(r.operating, (chain.level_low_dbfs, chain.level_high_dbfs))
            )
            for r in self._recent
            if r.state is State.NORMAL
        )
        return changes[len(changes) // 2] if len(changes) >= RECENT // 2 else (0.0, 0.0)


def _outside(level: float, low: float, high: float) -> tuple[float, float]:
    return level - high if level > high else min(level - low, 0.0), level - (low + high) / 2


def worst(findings: list[tuple[Health, str]]) -> Health:
    """The most serious class of the findings."""
    order = list(Health)
    return max((health for health, _ in findings), key=order.index, default=Health.GOOD)
