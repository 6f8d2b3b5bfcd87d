"""One window in, one judgement out. Pure: live sound, replay, `score`, calibration and tests share this path.

describe(window) -> Description      quality, embeddings, indicators: needs no baseline
judge(description) -> WindowResult   distances, p-values, state: needs one
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from asd_agent import bank, config
from asd_agent.baseline import Arrays, Baseline
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.logscore import LogScore
from asd_agent.encode.bundle import Bundle, Output
from asd_agent.encode.encoder import Encoder, shared_encoder
from asd_agent.encode.evidence import describe
from asd_agent.errors import BaselineError
from asd_agent.quality import assess
from asd_agent.types import Description, DetectorScore, Floats, Level, State, Window, WindowResult


@dataclass(frozen=True)
class Range:
    """What each value of an embedding did in calibration; all [dim].

    Reasons are read from how far a value lies beyond it: the difference from the one nearest window also shows
    what that window happened to do differently within the normal.
    """

    low: Floats
    high: Floats
    sd: Floats

    @classmethod
    def of(cls, x: npt.NDArray[np.float32]) -> Self:
        sd = x.std(axis=0, dtype=np.float64)
        return cls(x.min(axis=0), x.max(axis=0), np.maximum(sd, max(float(np.median(sd)) / 10, 1e-6)))

    def beyond(self, embedding: npt.NDArray[np.float32]) -> Floats:
        """Signed distance beyond the range in standard deviations, 0 inside; [dim]."""
        return np.asarray((embedding - np.clip(embedding, self.low, self.high)) / self.sd, np.float64)

    def arrays(self) -> Arrays:
        return {"range_low": self.low, "range_high": self.high, "range_sd": self.sd}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        return cls(arrays["range_low"], arrays["range_high"], arrays["range_sd"])


@dataclass(frozen=True)
class Detector:
    """One named embedding with its bank and calibration."""

    name: str
    output: Output
    bank: bank.Bank
    log_score: LogScore
    normal: Range

    def score(self, embedding: npt.NDArray[np.float32]) -> DetectorScore:
        distance = float(self.bank.distance(embedding[None])[0])
        return DetectorScore(
            self.name, distance, self.log_score.z(distance), self.log_score.p_value(distance)
        )

    def explain(self, embedding: npt.NDArray[np.float32]) -> str:
        """Which part of the sound moved; empty where the embedding has no labels."""
        return describe(self.output, self.normal.beyond(embedding))


class Pipeline:
    """Of one machine. Immutable: another baseline is another pipeline."""

    def __init__(
        self, machine: config.Machine, encoders: Mapping[str, Encoder], baseline: Baseline | None
    ) -> None:
        """`encoders` by the names in the configuration. Raises BaselineError when the baseline was made with others."""
        self.machine = machine
        self.encoders = encoders
        self.baseline = baseline
        self.rates = frozenset(encoder.bundle.meta.rate_hz for encoder in encoders.values())
        self.outputs = {
            detector_name(bundle, output.name, len(encoders)): output
            for bundle, encoder in encoders.items()
            for output in encoder.bundle.meta.outputs
        }
        self.thresholds: Thresholds | None = None
        if baseline is not None:
            self._check(baseline)
            self._detectors = [self._restore(baseline, name) for name in baseline.manifest.detectors]
            self._fusion = baseline.manifest.fusion
            self.thresholds = Thresholds.of(
                machine.alarm, self._fusion.spread, machine.window_s, machine.hop_s
            )

    def step(self, window: Window) -> WindowResult:
        return self.judge(self.describe(window))

    def describe(self, window: Window) -> Description:
        """Quality first; what cannot be judged is not encoded."""
        quality = assess(window, self.machine.window_s, self.machine.quality)
        embeddings: dict[str, npt.NDArray[np.float32]] = {}
        if quality.assessable:
            for bundle, encoder in self.encoders.items():
                found = encoder.embed(window.resampled[encoder.bundle.meta.rate_hz])
                embeddings |= {detector_name(bundle, k, len(self.encoders)): v for k, v in found.items()}
        return Description(
            index=window.index,
            start_s=window.start_s,
            duration_s=window.duration_s,
            utc_s=window.utc_s,
            origin=window.origin,
            quality=quality,
            embeddings=embeddings,
        )

    def judge(self, description: Description) -> WindowResult:
        if not description.quality.assessable:
            return self._result(
                description, State.NOT_ASSESSABLE, reason=", ".join(description.quality.reasons)
            )
        if self.baseline is None or self.thresholds is None:
            return self._result(description, State.LEARNING, reason="no baseline yet")
        scores = tuple(d.score(description.embeddings[d.name]) for d in self._detectors)
        p_value = self._fusion.p_value([s.z for s in scores])
        level = self.thresholds.level(p_value)
        result = self._result(
            description,
            State.NORMAL if level is Level.NORMAL else State.ANOMALOUS,
            p_value=p_value,
            level=level,
            detectors=scores,
            embedding_p=p_value,
            embedding_distance=max(scores, key=lambda s: s.z).distance,
        )
        if level is Level.NORMAL:
            return result
        quiet_db = self._quiet_db(description)
        if quiet_db is not None:
            words = f"{quiet_db:.0f} dB quieter than in calibration and unlike it: the machine is not running"
            return replace(result, state=State.OFF, level=Level.NORMAL, reason=words)
        return replace(result, reason=self._reason(description, scores))

    @property
    def threshold_score(self) -> float | None:
        """-log10 p that a window must reach to count as anomalous."""
        return None if self.thresholds is None else -math.log10(self.thresholds.alert_p)

    def _quiet_db(self, description: Description) -> float | None:
        """How far below the calibrated level, when that is far enough to mean that the machine is off."""
        limit_db = self.machine.quality.off_db
        assert self.baseline is not None
        below_db = self.baseline.manifest.chain.level_low_dbfs - description.quality.level_dbfs
        return below_db if limit_db is not None and below_db >= limit_db else None

    def _reason(self, description: Description, scores: tuple[DetectorScore, ...]) -> str:
        """The detector that deviates most, and where."""
        top = max(scores, key=lambda s: s.z)
        detector = next(d for d in self._detectors if d.name == top.name)
        where = detector.explain(description.embeddings[top.name])
        return f"{top.name.replace('_', ' ')} z {top.z:.1f}" + (f": {where}" if where else "")

    def _check(self, baseline: Baseline) -> None:
        made_with, manifest = {k: e.bundle.sha256 for k, e in self.encoders.items()}, baseline.manifest
        if manifest.bundles != made_with:
            raise BaselineError(
                f"{self.machine.id}: baseline {manifest.version} was made with the bundle(s) {_names(manifest.bundles)}, "
                f"the configuration says {_names(made_with)}; calibrate again"
            )
        if manifest.window_s != self.machine.window_s:
            raise BaselineError(
                f"{self.machine.id}: baseline {manifest.version} was made with windows of {manifest.window_s:g} s, "
                f"the configuration says window_s: {self.machine.window_s:g}; calibrate again"
            )

    def _restore(self, baseline: Baseline, name: str) -> Detector:
        stored = baseline.manifest.detectors[name]
        if name not in self.outputs:
            raise BaselineError(
                f"{self.machine.id}: the baseline has a detector {name!r} that no bundle has; calibrate again"
            )
        arrays = baseline.part(name)
        memory = bank.from_arrays(stored.kind, arrays)
        return Detector(name, self.outputs[name], memory, stored.log_score, Range.from_arrays(arrays))

    @staticmethod
    def _result(description: Description, state: State, **more: object) -> WindowResult:
        return WindowResult(
            index=description.index,
            start_s=description.start_s,
            duration_s=description.duration_s,
            utc_s=description.utc_s,
            origin=description.origin,
            state=state,
            quality=description.quality,
            **more,  # type: ignore[arg-type]
        )


def open_pipeline(machine: config.Machine, baseline: Baseline | None) -> Pipeline:
    """The machine's pipeline with its bundles loaded. Raises BundleError, BaselineError."""
    return Pipeline(machine, {name: shared_encoder(Bundle.load(name)) for name in machine.bundles}, baseline)


def detector_name(bundle: str, output: str, bundles: int) -> str:
    """Plain where one bundle is used, with the bundle's name (a path: its last part) where there are several."""
    return output if bundles == 1 else f"{bundle.rstrip('/').rsplit('/', 1)[-1]}.{output}"


def _names(bundles: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({sha256[:8]})" for name, sha256 in bundles.items())
