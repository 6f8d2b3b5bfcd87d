"""One operating state of the machine: its detectors, and how they judge a window."""

from __future__ import annotations

from dataclasses import dataclass, replace

from asd_agent.decide.fusion import Fusion
from asd_agent.decide.logscore import LogScore
from asd_agent.decide.tail import tail
from asd_agent.scoring.detectors import MECHANISM, SUBTRACTED, Detector
from asd_agent.types import Description, DetectorScore
from asd_agent.windowing.reference import RoomNormal


@dataclass(frozen=True)
class OperatingState:
    """What was learnt of one state of the machine."""

    name: str
    detectors: tuple[Detector, ...]
    fused: frozenset[str]
    fusion: Fusion
    embedding_fusion: Fusion
    transient: LogScore | None
    room: RoomNormal | None = None  # of the reference microphone

    def judge(self, description: Description) -> Judgement:
        """Where the room is louder than in calibration, a detector deviates by no more than it does without the sound
        of the room."""
        louder_db = 0.0
        if self.room is not None and description.room is not None:
            louder_db = self.room.louder_db(description.room)
        without_room = description.room is not None
        scores = tuple(d.score(description) for d in self.detectors if without_room or not d.name.endswith(SUBTRACTED))
        if louder_db > 0:
            scores = _limited(scores)
        p_value = self.fusion.p_value(s.z for s in scores if s.name in self.fused)
        return Judgement(self, scores, p_value, louder_db)

    def detector(self, name: str) -> Detector:
        return next(d for d in self.detectors if d.name == name)


def _limited(scores: tuple[DetectorScore, ...]) -> tuple[DetectorScore, ...]:
    """By the detectors' counterparts without the sound of the room."""
    z = {s.name: s.z for s in scores}
    lower = [min(s.z, z.get(s.name + SUBTRACTED, s.z)) for s in scores]
    return tuple(
        s if least == s.z else replace(s, z=least, p_value=tail(least)) for s, least in zip(scores, lower, strict=True)
    )


@dataclass(frozen=True)
class Judgement:
    state: OperatingState
    scores: tuple[DetectorScore, ...]
    p_value: float
    louder_db: float = 0.0  # the room, as the reference microphone hears it; 0 = as in calibration

    def summary(self) -> dict[str, float | None]:
        """The fields of a result that speak of embeddings and of mechanism apart."""
        embedded = [s for s in self.scores if s.name != MECHANISM and not s.name.endswith(SUBTRACTED)]
        return {
            "embedding_p": self._embedding_p(embedded),
            "embedding_distance": max(embedded, key=lambda s: s.z).distance,
            "mechanism_p": next((s.p_value for s in self.scores if s.name == MECHANISM), None),
        }

    def _embedding_p(self, embedded: list[DetectorScore]) -> float:
        if self.state.embedding_fusion is self.state.fusion and len(embedded) == len(self.state.fused):
            return self.p_value
        return self.state.embedding_fusion.p_value(s.z for s in embedded)
