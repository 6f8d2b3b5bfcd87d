"""One window in, one result out. Pure: the daemon, shadow, replay, `score`, the API and the archive share `step`.

    describe(window)     quality, embeddings, indicators: needs no baseline; calibration stops here
    judge(description)   distances, p-values, operating state: needs one
    blame(window)        why an anomalous window deviates: component, band, or a broken signal chain

A window is judged in every operating state and belongs to the one in which it is least surprising. What is surprising
in all of them deviates. What needs several windows (votes, event rate, alarm) is in `scoring.decision`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent import config, mechanism
from asd_agent.baseline import Baseline
from asd_agent.baseline.bundles import bundle_of
from asd_agent.decide import reason
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.logscore import LogScore
from asd_agent.decide.states import OFF
from asd_agent.encode.encoder import Encoder, shared_encoder
from asd_agent.encode.meta import BundleMeta, Output
from asd_agent.reasons import Deviation
from asd_agent.scoring import explain, nuisance, restore
from asd_agent.scoring.detectors import SUBTRACTED, MechanismDetector
from asd_agent.scoring.operating import OperatingState
from asd_agent.store.rounding import kept_p, kept_s
from asd_agent.types import Cause, Description, HeardSound, Level, State, Window, WindowResult
from asd_agent.windowing import signal_chain
from asd_agent.windowing.quality import assess
from asd_agent.windowing.reference import Room, hear_room
from asd_agent.windowing.transients import strongest_transient

if TYPE_CHECKING:
    from asd_agent.mechanism import Analyser, MechanismBaseline, Speed

UNLIKE_P = 0.1  # far quieter sound is a stopped machine when it is also no more like the machine than this


@dataclass(frozen=True)
class Reported:
    """What the machine's own controller says of a window, over MQTT."""

    speed: Speed | None = None  # of the shaft
    operating: str = ""  # the operating state; empty = it is to be found in the sound
    changing: bool = False  # the operating state changed during the window


NOTHING_REPORTED = Reported()


@dataclass(frozen=True)
class Step:
    """A window and all that one pipeline says of it."""

    window: Window
    reported: Reported
    description: Description
    result: WindowResult


class Pipeline:
    """Of one machine. Immutable: another baseline is another pipeline."""

    def __init__(self, machine: config.Machine, encoders: Mapping[str, Encoder], baseline: Baseline | None) -> None:
        """`encoders` by the names in the configuration. Raises BaselineError when the baseline was made with others."""
        self.machine = machine
        self.encoders = encoders
        self.baseline = baseline
        self.rates = _rates([encoder.bundle.meta for encoder in encoders.values()])
        named = {
            detector_name(bundle, output.name, len(encoders)): output
            for bundle, encoder in encoders.items()
            for output in encoder.bundle.meta.outputs
        }
        self.outputs: dict[str, Output] = {
            k: _measured(o, machine.distance) for k, o in named.items() if o.role == "detector"
        }
        self.subtracted = {k + SUBTRACTED: o for k, o in self.outputs.items()}  # with a reference microphone
        self.nuisance: dict[str, Output] = {k: o for k, o in named.items() if o.role == "nuisance"}
        self.states: tuple[OperatingState, ...] = ()
        self.thresholds: Thresholds | None = None
        self._analysers: dict[int, Analyser] = {}
        if baseline is not None:
            restore.check(machine, encoders, baseline)
            self.states = restore.states(baseline, self.outputs | self.subtracted)
            self.thresholds = baseline.manifest.thresholds(machine)

    def step(
        self, window: Window, reported: Reported = NOTHING_REPORTED, description: Description | None = None
    ) -> Step:
        """The only way from a window to a result. `description`: where a pipeline with the same encoders has made it
        already."""
        description = description or self.describe(window, reported)
        return Step(window, reported, description, self.blame(window, self.judge(description), reported.speed))

    def describe(self, window: Window, reported: Reported = NOTHING_REPORTED) -> Description:
        """Quality first: a window that cannot be judged is not encoded."""
        quality = assess(window, self.machine.window_s, self.machine.quality)
        embeddings: dict[str, npt.NDArray[np.float32]] = {}
        if not quality.assessable:
            return _description(window, quality=quality, embeddings=embeddings)
        transient = strongest_transient(
            window.resampled[max(self.rates)], max(self.rates)
        )  # at the rate of the encoders
        for bundle, encoder in self.encoders.items():
            found = encoder.embed(window.resampled[encoder.bundle.meta.rate_hz])
            embeddings |= {detector_name(bundle, k, len(self.encoders)): v for k, v in found.items()}
        analyser = self.analyser(window.rate_hz)
        room = hear_room(window, self.rates, self.machine.quality.silence_dbfs)
        if room is not None:
            embeddings |= self._subtracted(room)
        return _description(
            window,
            quality=quality,
            embeddings=embeddings,
            indicators=analyser.indicators(window.samples, reported.speed).values if analyser is not None else {},
            transient=transient,
            operating=reported.operating,
            changing=reported.changing,
            room=None if room is None else room.sound,
        )

    def _subtracted(self, room: Room) -> dict[str, npt.NDArray[np.float32]]:
        """Embeddings of the sound at the machine without what the room's explains."""
        found: dict[str, npt.NDArray[np.float32]] = {}
        for bundle, encoder in self.encoders.items():
            for output, value in encoder.embed(room.subtracted[encoder.bundle.meta.rate_hz]).items():
                found[detector_name(bundle, output, len(self.encoders)) + SUBTRACTED] = value
        return {name: value for name, value in found.items() if name in self.subtracted}

    def judge(self, description: Description) -> WindowResult:
        if not description.quality.assessable:
            causes = description.quality.causes
            return _result(description, state=State.NOT_ASSESSABLE, cause=causes[0], reason=reason.causes(causes))
        if self.baseline is None or self.thresholds is None:
            return _result(description, state=State.LEARNING, reason="no baseline yet")
        if description.changing:
            cause = Cause.STATE_CHANGING
            return _result(description, state=State.NOT_ASSESSABLE, cause=cause, reason=reason.causes([cause]))
        reported = [s for s in self.states if s.name == description.operating]
        if description.operating and not reported and self.baseline.manifest.states_reported:
            return _result(
                description,
                state=State.NOT_ASSESSABLE,
                cause=Cause.STATE_UNKNOWN,
                operating=description.operating,
                reason=reason.unknown_state(description.operating),
            )
        best = max((s.judge(description) for s in reported or self.states), key=lambda j: j.p_value)
        p_value = kept_p(best.p_value)  # what decides is what is stored: it can be decided again
        result = _result(
            description,
            state=self.thresholds.state(p_value, off=best.state.name == OFF),
            level=self.thresholds.level(p_value),
            p_value=p_value,
            detectors=best.scores,
            operating=best.state.name,
            nuisance=reason.louder_room(best.louder_db)
            if best.louder_db
            else self._nuisance(description, best.state.name),
            **best.summary(),
            **_transient(best.state.transient, description),
        )
        quiet_db = self._quiet_db(description)
        if quiet_db is not None and p_value <= UNLIKE_P:
            words = reason.not_running(quiet_db)
            return replace(
                result, state=State.OFF, level=Level.NORMAL, operating=OFF, cause=Cause.NOT_RUNNING, reason=words
            )
        if result.state is not State.ANOMALOUS:
            return result
        told = explain.deviation(best.state, deciding_z(best.state, result), description)
        return _because(result, msgspec.structs.replace(told, nuisance=result.nuisance))

    def blame(self, window: Window, result: WindowResult, speed: Speed | None = None) -> WindowResult:
        """The reason of an anomalous window begins with what the mechanism analysis finds: a component, a band. A
        window that lacks the upper part of the spectrum, as behind another microphone, is not assessable."""
        if result.state is not State.ANOMALOUS:
            return result
        if broken := self._broken_chain(window, result):
            return replace(
                result, state=State.NOT_ASSESSABLE, level=Level.NORMAL, p_value=None, embedding_p=None,
                embedding_distance=None, mechanism_p=None, detectors=(), deviation=None, cause=Cause.BAND_LOST,
                reason=broken,
            )  # fmt: skip
        assert result.deviation is not None
        return _because(result, self.diagnosed(window, result, result.deviation, speed))

    def diagnosed(self, window: Window, result: WindowResult, told: Deviation, speed: Speed | None) -> Deviation:
        """With what the mechanism analysis finds in the window, where motor data is configured."""
        if self.machine.mechanism is None:
            return told
        from asd_agent.mechanism.diagnose import diagnose

        normal = self.mechanism_baseline(result.operating)
        if normal is None:
            return told
        found = diagnose(window.samples, window.rate_hz, self.machine.mechanism, normal, speed)
        return explain.with_finding(told, found[0]) if found else told

    def mechanism_baseline(self, operating: str) -> MechanismBaseline | None:
        """What the mechanism analysis knows of an operating state."""
        detectors = (d for state in self.states if state.name == operating for d in state.detectors)
        return next((d.baseline for d in detectors if isinstance(d, MechanismDetector)), None)

    def _broken_chain(self, window: Window, result: WindowResult) -> str:
        """Which part of the spectrum that the scores depend on does not arrive any more; else empty."""
        assert self.baseline is not None
        learnt = self.baseline.manifest.chain
        normal = learnt.floors.get(result.operating)
        if normal is None:
            return ""
        found = signal_chain.compare(signal_chain.fingerprint(window.samples, window.rate_hz), normal, learnt.edge_hz)
        hears_hz = window.rate_hz / 2 if self.machine.mechanism is not None else max(self.rates) / 2
        if found is None or found.lost_hz is None or found.lost_hz >= hears_hz:
            return ""
        return signal_chain.lost_words(found.lost_hz, learnt)

    def deciding(self, result: WindowResult) -> tuple[OperatingState, list[str]] | None:
        """The operating state that a result was judged in, and its detectors that decide, the one that deviates most
        first; None without both."""
        state = next((s for s in self.states if s.name == result.operating), None)
        z = deciding_z(state, result) if state is not None else {}
        return None if state is None or not z else (state, sorted(z, key=lambda name: -z[name]))

    @property
    def threshold_score(self) -> float | None:
        """-log10 p that a window must reach to count as anomalous."""
        return None if self.thresholds is None else -math.log10(self.thresholds.alert_p)

    def _nuisance(self, description: Description, state: str) -> str:
        assert self.baseline is not None
        manifest = self.baseline.manifest
        usual_dbfs = next(s.level_dbfs for s in manifest.states if s.name == state)
        return nuisance.recognised(description, self.nuisance, manifest.nuisance, usual_dbfs)

    def nuisances(self, description: Description, most: int = 3) -> tuple[HeardSound, ...]:
        """The sounds of no machine that are most probable in the window, whether or not they are usual there."""
        return nuisance.heard(description, self.nuisance, most)

    def analyser(self, rate_hz: int) -> Analyser | None:
        """Of the mechanism analysis; None without motor data."""
        if self.machine.mechanism is None:
            return None
        if rate_hz not in self._analysers:
            self._analysers[rate_hz] = mechanism.Analyser(self.machine.mechanism, rate_hz)
        return self._analysers[rate_hz]

    def _quiet_db(self, description: Description) -> float | None:
        """How far below the calibrated level, when that is far enough to mean that the machine is off."""
        limit_db = self.machine.quality.off_db
        assert self.baseline is not None
        below_db = self.baseline.manifest.chain.level_low_dbfs - description.quality.level_dbfs
        return below_db if limit_db is not None and below_db >= limit_db else None


def _because(result: WindowResult, told: Deviation) -> WindowResult:
    return replace(result, deviation=told, reason=reason.window(told))


def deciding_z(state: OperatingState, result: WindowResult) -> dict[str, float]:
    """z of the detectors that decide in a state."""
    return {s.name: s.z for s in result.detectors if s.name in state.fused}


def open_pipeline(machine: config.Machine, baseline: Baseline | None) -> Pipeline:
    """The machine's pipeline with its bundles loaded. Raises BundleError, BaselineError."""
    return Pipeline(machine, {name: shared_encoder(bundle_of(name, baseline)) for name in machine.bundles}, baseline)


def _description(window: Window, **more: Any) -> Description:
    return Description(
        index=window.index,
        start_s=window.start_s,
        duration_s=window.duration_s,
        utc_s=window.utc_s,
        origin=window.origin,
        **more,
    )


def _result(description: Description, **more: Any) -> WindowResult:
    return WindowResult(
        index=description.index,
        start_s=description.start_s,
        duration_s=description.duration_s,
        utc_s=kept_s(description.utc_s),
        origin=description.origin,
        quality=description.quality,
        **more,
    )


def _transient(normal: LogScore | None, description: Description) -> dict[str, float]:
    if normal is None or description.transient is None:
        return {}
    moment = description.transient
    return {"transient_p": kept_p(normal.p_value(moment.excess_db)), "transient_at_s": kept_s(moment.at_s)}


def _rates(metas: Iterable[BundleMeta]) -> dict[int, int]:
    """Rate of the bundles -> the lowest rate of a source that all of them take for it."""
    rates: dict[int, int] = {}
    for meta in metas:
        rates[meta.rate_hz] = max(rates.get(meta.rate_hz, 0), meta.lowest_rate_hz or meta.rate_hz)
    return rates


def detector_name(bundle: str, output: str, bundles: int) -> str:
    """Plain where one bundle is used, with the bundle's name (a path: its last part) where there are several."""
    return output if bundles == 1 else f"{bundle.rstrip('/').rsplit('/', 1)[-1]}.{output}"


def _measured(output: Output, distance: str | None) -> Output:
    """With the distance of the configuration in place of the bundle's; a bank that came with it stays."""
    if distance is None or output.bank is not None:
        return output
    return msgspec.structs.replace(output, distance=distance, blocks=output.blocks if distance == "whitened" else [])
