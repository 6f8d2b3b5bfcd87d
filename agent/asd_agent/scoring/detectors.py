"""Detectors: one view of the sound each, with its memory of one operating state and its calibration.

An embedding of a bundle is judged by a bank and the logarithm of its distance; the indicators of the mechanism analysis
by their own baseline. What all have in common is a standard score z on held-out normals, high = anomalous.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from asd_agent import bank, mechanism
from asd_agent.bank import Bank, Widen
from asd_agent.decide.blocks import Labels, leave_block_out
from asd_agent.decide.logscore import LogScore
from asd_agent.decide.tail import tail
from asd_agent.encode import deviation
from asd_agent.encode.meta import Output
from asd_agent.reasons import Change
from asd_agent.types import Description, DetectorScore, Floats

if TYPE_CHECKING:
    from asd_agent.mechanism import MechanismBaseline

MECHANISM = "mechanism"
SUBTRACTED = "_subtracted"  # ends the names of what is measured without the sound of the room

Arrays = dict[str, npt.NDArray[Any]]


class Detector(Protocol):
    @property
    def name(self) -> str: ...

    def score(self, description: Description) -> DetectorScore: ...

    def band(self, description: Description) -> tuple[float, float] | None:
        """From and to in Hz of the part of the spectrum that moved most; None where that cannot be said."""

    def arrays(self) -> Arrays: ...


@dataclass(frozen=True)
class Range:
    """What each value of an embedding did in calibration; all [dim].

    Reasons are read from how far a value lies beyond it: the difference from the one nearest window also shows
    what that window happened to do differently within the normal.
    """

    low: Floats
    middle: Floats  # median
    high: Floats
    sd: Floats

    @classmethod
    def of(cls, x: npt.NDArray[np.float32]) -> Self:
        sd = x.std(axis=0, dtype=np.float64)
        middle = np.median(x, axis=0).astype(np.float64)
        return cls(x.min(axis=0), middle, x.max(axis=0), np.maximum(sd, max(float(np.median(sd)) / 10, 1e-6)))

    def beyond(self, embedding: npt.NDArray[np.floating]) -> Floats:
        """Signed distance beyond the range in standard deviations, 0 inside; [dim]."""
        return np.asarray((embedding - np.clip(embedding, self.low, self.high)) / self.sd, np.float64)

    def arrays(self) -> Arrays:
        return {"range_low": self.low, "range_middle": self.middle, "range_high": self.high, "range_sd": self.sd}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        return cls(*(arrays[f"range_{name}"] for name in ("low", "middle", "high", "sd")))


@dataclass(frozen=True)
class EmbeddingDetector:
    name: str
    output: Output
    bank: bank.Bank
    log_score: LogScore
    normal: Range

    @classmethod
    def fit(
        cls, name: str, output: Output, windows: Sequence[Description], block: Labels, session: Labels, guard: int,
        given: Bank | None = None,
    ) -> tuple[Self, Floats]:  # fmt: skip
        """The detector, and z [n] of the windows, each from a bank without its block. `given`: the bank that came with
        the bundle, which holds none of the windows. Raises CalibrationError.

        So a unit of z is how far a block strays, not the next window: that would rank the later windows of the same
        recordings better (benchmarks/detection.py: 0.009 of AUC), and those of a speed that calibration lacked worse
        (benchmarks/bldc.py: 0.03).
        """
        x = embeddings(windows, name)
        if given is None:
            fit = _fit(output)
            held_out, model = leave_block_out(fit, x, block, session, guard), fit(x)
        else:
            held_out, model = given.distance(x), given
        log_score = LogScore.fit(held_out, bank.signed(model))
        z = np.array([log_score.z(distance) for distance in held_out])
        return cls(name, output, model, log_score, Range.of(x)), z

    def extended(self, windows: Sequence[Description], share: int, widen: Widen = "smote") -> tuple[Self, Floats]:
        """A detector of a further condition of which only a few windows [n >= 3] exist, and their z [n].

        What is normal variation comes from this detector (its whitening and the width of its scores), what is normal
        from the new windows, made more by `widen` (`bank.widened`) or rescaled by how close they lie (`bank.around`);
        their own distances are measured with each left out. Source and target keep statistics of their own; the nearer
        one counts. No score of later sound enters.
        """
        x = embeddings(windows, self.name)
        others = [bank.around(self.bank, np.delete(x, i, axis=0), widen) for i in range(len(x))]
        left_out = np.array([other.distance(row[None])[0] for other, row in zip(others, x, strict=True)])
        own = LogScore.fit(left_out)
        log_score = LogScore(median=own.median, scale=max(own.scale, self.log_score.scale))
        wide = bank.widened(self.bank, x, widen, share)
        z = np.array([log_score.z(distance) for distance in left_out])
        return type(self)(self.name, self.output, bank.around(self.bank, wide, widen), log_score, Range.of(x)), z

    def score(self, description: Description) -> DetectorScore:
        distance = float(self.bank.distance(description.embeddings[self.name][None])[0])
        z = self.log_score.z(distance)
        return DetectorScore(self.name, distance, z, tail(z))

    def difference(self, description: Description) -> Floats:
        """From the median of the calibration, levels made comparable; [dim]."""
        return deviation.levelled(self.output, description.embeddings[self.name] - self.normal.middle)

    def changes(self, description: Description, windows: int = 1) -> list[Change]:
        """What moved, the heaviest first; `windows`: the description is the median of so many. What is within the range
        of single windows may be far off for a median."""
        found, normal = self.difference(description), self.normal
        z = found / normal.sd * np.sqrt(windows) if windows > 1 else normal.beyond(normal.middle + found)
        return deviation.changes(self.output, z, found)

    def band(self, description: Description) -> tuple[float, float] | None:
        return next((c.band_hz for c in self.changes(description) if c.band_hz is not None), None)

    def nearest(self, description: Description, most: int) -> tuple[Floats, npt.NDArray[np.intp]]:
        """Distances and rows of the calibration windows that are nearest, in rising order; empty where the bank does
        not hold them one by one, or came with the bundle."""
        if self.output.bank is not None:
            return np.zeros(0), np.zeros(0, np.intp)
        return bank.nearest(self.bank, description.embeddings[self.name], most)

    def arrays(self) -> Arrays:
        return self.bank.arrays() | self.normal.arrays()

    @classmethod
    def restore(cls, name: str, output: Output, kind: str, log_score: LogScore, arrays: Arrays) -> Self:
        """Raises BaselineError."""
        return cls(name, output, bank.from_arrays(kind, arrays), log_score, Range.from_arrays(arrays))


@dataclass(frozen=True)
class MechanismDetector:
    baseline: MechanismBaseline
    name: str = MECHANISM

    @classmethod
    def fit(cls, windows: Sequence[Description], block: Labels) -> tuple[Self, Floats]:
        """The detector, and z [n] of the windows, each judged without its block. Raises CalibrationError."""
        baseline = mechanism.MechanismBaseline.fit([d.indicators for d in windows], block)
        return cls(baseline), np.nan_to_num(baseline.held_out_z())

    def score(self, description: Description) -> DetectorScore:
        found = self.baseline.score(description.indicators)
        if found is None:  # its own gates are stricter than the window's quality
            return DetectorScore(self.name, 0.0, 0.0, 0.5)
        p_value, z = found
        return DetectorScore(self.name, z, z, p_value)

    def band(self, description: Description) -> tuple[float, float] | None:
        from asd_agent.mechanism.bands import band_of

        names = [d.name for d in self.baseline.judge(description.indicators).deviations[:2]]
        return next((found for name in names if (found := band_of(name)) is not None), None)

    def arrays(self) -> Arrays:
        return dict(self.baseline.arrays())


def embeddings(windows: Sequence[Description], name: str) -> npt.NDArray[np.float32]:
    return np.stack([d.embeddings[name] for d in windows])


def _fit(output: Output) -> Callable[[npt.NDArray[np.float32]], bank.Bank]:
    options = {"blocks": output.blocks} if output.blocks else {}
    return lambda rows: bank.fit(output.distance, rows, **options)
