"""One operating state of the machine: its detectors, and how they judge a window."""

from __future__ import annotations

from dataclasses import dataclass

from asd_agent.decide.fusion import Fusion
from asd_agent.decide.logscore import LogScore
from asd_agent.scoring.detectors import MECHANISM, Detector
from asd_agent.types import Description, DetectorScore


@dataclass(frozen=True)
class OperatingState:
    """What was learnt of one state of the machine."""

    name: str
    detectors: tuple[Detector, ...]
    fused: frozenset[str]
    fusion: Fusion
    embedding_fusion: Fusion
    transient: LogScore | None

    def judge(self, description: Description) -> Judgement:
        scores = tuple(d.score(description) for d in self.detectors)
        return Judgement(self, scores, self.fusion.p_value(s.z for s in scores if s.name in self.fused))

    def detector(self, name: str) -> Detector:
        return next(d for d in self.detectors if d.name == name)


@dataclass(frozen=True)
class Judgement:
    state: OperatingState
    scores: tuple[DetectorScore, ...]
    p_value: float

    def summary(self) -> dict[str, float | None]:
        """The fields of a result that speak of embeddings and of mechanism apart."""
        embedded = [s for s in self.scores if s.name != MECHANISM]
        return {
            "embedding_p": self._embedding_p(embedded),
            "embedding_distance": max(embedded, key=lambda s: s.z).distance,
            "mechanism_p": next((s.p_value for s in self.scores if s.name == MECHANISM), None),
        }

    def _embedding_p(self, embedded: list[DetectorScore]) -> float:
        if self.state.embedding_fusion is self.state.fusion and len(embedded) == len(self.state.fused):
            return self.p_value
        return self.state.embedding_fusion.p_value(s.z for s in embedded)
