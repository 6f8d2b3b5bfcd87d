"""Health of the signal chain, apart from the machine's: NAMUR NE 107 classes with reasons.

failure                 the chain delivers nothing that can be judged
function_check          somebody is working on it: calibrating, or not calibrated yet
out_of_specification    it delivers, but not as it did at calibration (gain, clipping)
maintenance_required    it works, and something wants attention (disk, restarts, lag)
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from asd_agent.capture import SourceStatus
from asd_agent.decide.reason import WORDS as CAUSES
from asd_agent.decide.reason import too_coherent
from asd_agent.types import Cause, ChainStatus, Description, Fingerprint, RoomSound, State, WindowResult
from asd_agent.windowing.reference import hears_machine
from asd_agent.windowing.signal_chain import SignalChain, compare, lost_words

PRINTS, FEWEST_PRINTS = 7, 3  # fingerprints, one a minute
DC_CHANGE = 0.02  # of full scale
RECENT = 12  # windows that the chain is judged by
LEAST_DELIVERED = 0.9  # seconds of sound a second: clocks of sound cards differ by less than a thousandth
LEVEL_CHANGE_DB = 6.0  # beyond the calibrated range: somebody turned a knob or moved the microphone
BROKEN = {
    Cause.SILENCE,
    Cause.FLAT,
    Cause.DC,
    Cause.NAN,
    Cause.RANDOM,
}  # the other causes (clipping, gap, short) still deliver sound


class Finding(NamedTuple):
    """What is not as it should be."""

    status: ChainStatus
    words: str


class ChainHealth:
    """What the last windows say of the signal chain. The worker adds, the main thread asks; a lock guards both."""

    def __init__(self, reference: bool = False) -> None:
        """`reference`: there should be a second microphone."""
        self._reference = reference
        self._lock = threading.Lock()
        self._rooms: deque[RoomSound | None] = deque(maxlen=RECENT)  # of windows that could be judged
        self._recent: deque[WindowResult] = deque(maxlen=RECENT)
        self._prints: deque[tuple[str, Fingerprint]] = deque(maxlen=PRINTS)  # and the operating state

    def see(self, result: WindowResult, description: Description | None = None) -> None:
        """Every window; its fingerprint is set about once a minute."""
        with self._lock:
            self._recent.append(result)
            if description is None:
                return
            if description.fingerprint is not None:
                self._prints.append((result.operating, description.fingerprint))
            if self._reference and description.quality.assessable and not result.nuisance:
                self._rooms.append(description.room)

    def findings(self, source: SourceStatus, chain: SignalChain | None) -> list[Finding]:
        """About source, sound and level; empty = good. `chain` is what calibration saw."""
        if not source.available:
            return [Finding(ChainStatus.FAILURE, f"source unavailable: {source.detail}")]
        with self._lock:
            return [*_delivery(source), *self._findings(chain), *_reference(self._rooms)]

    def _findings(self, chain: SignalChain | None) -> list[Finding]:
        found: list[Finding] = []
        for cause, count in self._bad().items():
            health = ChainStatus.FAILURE if cause in BROKEN else ChainStatus.OUT_OF_SPECIFICATION
            found.append(Finding(health, f"{CAUSES[cause]} in {count} of the last {len(self._recent)} windows"))
        outside, change = self._level_change(chain)
        if abs(outside) >= LEVEL_CHANGE_DB:
            direction = "above" if change > 0 else "below"
            words = f"level {abs(change):.0f} dB {direction} calibration while the sound is as it was: "
            found.append(Finding(ChainStatus.OUT_OF_SPECIFICATION, words + "gain or microphone position changed"))
        if chain is not None:
            changed = self._band_lost() or self._changed(chain)
            found += [Finding(ChainStatus.OUT_OF_SPECIFICATION, words) for words in changed]
        return found

    def _band_lost(self) -> list[str]:
        """That at least half of the recent windows lack a part of the spectrum."""
        words = [r.reason for r in self._recent if r.cause is Cause.BAND_LOST]
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

    def _bad(self) -> dict[Cause, int]:
        """Causes that spoil at least half of the recent windows."""
        counts = Counter(cause for result in self._recent for cause in result.quality.causes)
        return {cause: n for cause, n in counts.items() if 2 * n >= len(self._recent)}

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


def _delivery(source: SourceStatus) -> list[Finding]:
    rate = source.sound_per_s
    if rate is None or rate >= LEAST_DELIVERED:
        return []
    words = f"the source delivers {rate:.2f} s of sound a second, the rest is lost before it gets here: "
    return [Finding(ChainStatus.OUT_OF_SPECIFICATION, words + "an overloaded host, a slow link, a wrong rate_hz?")]


def _reference(rooms: Sequence[RoomSound | None]) -> list[Finding]:
    """Of the reference microphone over the last windows in which the room was as in calibration."""
    heard = [room for room in rooms if room is not None]
    if len(rooms) < FEWEST_PRINTS:
        return []
    if 2 * len(heard) < len(rooms):
        words = "the reference microphone is silent or missing: the machine is judged without it"
        return [Finding(ChainStatus.OUT_OF_SPECIFICATION, words)]
    coherence = hears_machine(heard)
    return [Finding(ChainStatus.MAINTENANCE_REQUIRED, too_coherent(coherence))] if coherence is not None else []


def _outside(level: float, low: float, high: float) -> tuple[float, float]:
    return level - high if level > high else min(level - low, 0.0), level - (low + high) / 2


def worst(findings: Iterable[Finding]) -> ChainStatus:
    """The most serious class of the findings."""
    return max((finding.status for finding in findings), key=list(ChainStatus).index, default=ChainStatus.GOOD)
