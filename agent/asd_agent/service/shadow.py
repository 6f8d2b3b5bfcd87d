"""A candidate baseline beside the active one: scored and recorded, never published, and never in its way.

The candidate is what `calibrate` wrote and nobody has promoted yet. With the machine's own encoder its windows are
scored from the same embeddings, which costs next to nothing; another encoder (`shadow: {bundle: ...}`) costs what it
costs. Scores, alarm events and the alarm's state go into the store under a name of their own, by version, so that a
restart goes on where it was and `asd-agent baseline compare` has something to compare.
"""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import structlog

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.decide.alarm import without_votes
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder, shared_encoder
from asd_agent.errors import AsdError, CalibrationError
from asd_agent.scoring.decision import Decision
from asd_agent.scoring.pipeline import Pipeline, Step
from asd_agent.service.calibration_job import CalibrationJob
from asd_agent.service.status import ShadowStatus
from asd_agent.store import Store
from asd_agent.store.records import shadow_name
from asd_agent.types import AlarmState, Description

if TYPE_CHECKING:
    pass

log = structlog.get_logger()


@dataclass
class _Unit:
    """One candidate at work."""

    version: str
    pipeline: Pipeline
    decision: Decision
    windows: int = 0


class Shadow:
    """Of one machine. Thread-safe; nothing it meets is raised: `status` says what is wrong."""

    def __init__(self, machine: config.Machine, baselines: BaselineStore, store: Store) -> None:
        self._machine = machine.shadowed
        self._same = self._machine.bundles == machine.bundles  # as the machine: its embeddings will do
        self._baselines, self._store = baselines, store
        self._lock = threading.Lock()
        self._unit: _Unit | None = None
        self._seen: tuple[int, int] | None = None  # the file of pointers when it was last read
        self.trouble = ""
        self._encoders: dict[str, Encoder] = {}
        try:
            self._encoders = {name: shared_encoder(Bundle.load(name)) for name in self._machine.bundles}
            self._follow()
        except AsdError as exc:
            self._fail(str(exc))

    def rates(self, rate_hz: int, own: dict[int, int]) -> dict[int, int]:
        """What the encoders of the shadow want beside the machine's `own` rates (rate -> lowest rate of a source)."""
        wanted = Pipeline(self._machine, self._encoders, None).rates if self._encoders and not self._same else {}
        if any(lowest > rate_hz for lowest in wanted.values()):
            with self._lock:
                self._encoders, self._unit = {}, None
            self._fail(f"the sound comes at {rate_hz} Hz, the shadow's bundle wants {max(wanted.values())} Hz")
            return {}
        return {rate: lowest for rate, lowest in wanted.items() if rate not in own}

    @property
    def bare(self) -> Pipeline:
        """The pipeline for calibrating a candidate of another bundle. Raises CalibrationError."""
        if self._same:
            raise CalibrationError(
                f"{self._machine.id}: there is no shadow.bundle; a candidate of its own bundle runs in shadow anyway"
            )
        if not self._encoders:
            raise CalibrationError(f"{self._machine.id}: {self.trouble}")
        return Pipeline(self._machine, self._encoders, None)

    def calibrate(self, calibration: CalibrationJob, step: Step) -> None:
        """A window for a calibration of the shadow's bundle; `step` as the machine's own pipeline took it."""
        try:
            calibration.see(self._described(self.bare, step))
        except AsdError as exc:
            calibration.cancel()
            self._fail(str(exc))
        except Exception as exc:
            calibration.cancel()
            self.trouble = f"internal error: {exc!r}; see the log"
            log.exception("shadow broke", machine=self._machine.id)

    def see(self, step: Step, synced: bool) -> None:
        """A window as the machine's own pipeline took it."""
        try:
            self._follow()
            with self._lock:
                if self._unit is not None:
                    self._score(self._unit, step, synced)
        except AsdError as exc:
            self._fail(str(exc))
        except Exception as exc:
            if not self.trouble:
                log.exception("shadow broke", machine=self._machine.id)
            self.trouble = f"internal error: {exc!r}; see the log"

    def status(self) -> ShadowStatus | None:
        """None when there is no candidate."""
        with self._lock:
            unit = self._unit
            if unit is None and not self.trouble:
                return None
            return ShadowStatus(
                baseline=unit.version if unit else None,
                windows_scored=unit.windows if unit else 0,
                level=unit.decision.alarm.state.known_level if unit else None,
                trouble=self.trouble,
            )

    def _score(self, unit: _Unit, step: Step, synced: bool) -> None:
        own = unit.pipeline.step(step.window, step.reported, self._described(unit.pipeline, step))
        events = unit.decision.update(own.result, synced)
        if events:
            kept = [msgspec.structs.replace(event, baseline=unit.version) for event in events]
            self._store.commit_events(kept, unit.decision.alarm.state)
        self._store.add_score(shadow_name(self._machine.id, unit.version), own.result, unit.version)
        unit.windows += 1
        self.trouble = ""

    def _described(self, pipeline: Pipeline, step: Step) -> Description:
        """By the shadow's encoders; what does not depend on them is taken over."""
        known = step.description
        if self._same or not known.quality.assessable:
            return known
        found = pipeline.describe(step.window, step.reported)
        return dataclasses.replace(found, fingerprint=known.fingerprint)

    def _follow(self) -> None:
        """Take up another candidate, or none, when the pointers have changed."""
        try:
            found = (self._baselines.folder / "pointers.json").stat()
            seen = (found.st_mtime_ns, found.st_ino)
        except OSError:
            seen = None
        if seen == self._seen or not self._encoders:
            return
        self._seen = seen
        version = self._baselines.pointers().candidate
        unit = self._take_up(version) if version is not None else None
        with self._lock:
            self._unit, self.trouble = unit, ""

    def _take_up(self, version: str) -> _Unit:
        """Raises BaselineError, StoreError."""
        with self._lock:
            self._unit = None
        baseline = self._baselines.load(version)
        pipeline = Pipeline(self._machine, self._encoders, baseline)
        name = shadow_name(self._machine.id, version)
        state = self._store.states().get(name, AlarmState())
        machine = msgspec.structs.replace(self._machine, id=name)  # the events' ids hold it
        log.info("candidate in shadow", machine=self._machine.id, baseline=version)
        return _Unit(version, pipeline, Decision(machine, baseline.manifest, without_votes(state)))

    def _fail(self, line: str) -> None:
        if line != self.trouble:
            log.warning("no candidate in shadow", machine=self._machine.id, error=line)
        self.trouble = line
