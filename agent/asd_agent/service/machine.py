"""One machine: blocks in from its capture thread, windows scored by the worker, transitions out to the sink."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import structlog

from asd_agent import config
from asd_agent.baseline import Baseline, BaselineStore, Pointers
from asd_agent.capture import SourceStatus
from asd_agent.decide.alarm import Alarm
from asd_agent.errors import AsdError, BaselineError
from asd_agent.evidence.clip import Judged
from asd_agent.evidence.replay import judged, made_with
from asd_agent.publish.payloads import rfc3339
from asd_agent.scoring.decision import Lanes
from asd_agent.scoring.pipeline import Pipeline
from asd_agent.service import drift_file as driftfile
from asd_agent.service.calibrator import Calibrator
from asd_agent.service.health import ChainHealth, Health, worst
from asd_agent.service.mixer_watch import MixerWatch
from asd_agent.service.reported_state import ReportedState
from asd_agent.service.shadow import Shadow
from asd_agent.service.unknown_state import UnknownState
from asd_agent.types import AlarmEvent, AlarmState, Block, Description, State, Window, WindowResult
from asd_agent.windowing import signal_chain as chain
from asd_agent.windowing.resampler import reach_s
from asd_agent.windowing.windower import Windower

SPEED_HOLDS_S = 120.0  # after the last message on the speed topic
if TYPE_CHECKING:
    from asd_agent.mechanism.speed import Speed

QUEUE = 8  # windows that may wait for the worker; beyond it the oldest is dropped and counted
KEEP_DRIFT_S = 600.0
DROPPED_RECENTLY_S = 3600.0  # so long health speaks of it
log = structlog.get_logger()


class Sink(Protocol):
    """Where a machine's results and transitions go: the store and, through it, the broker."""

    def introduce(self, monitor: Monitor) -> None: ...
    def judged(self, monitor: Monitor, row: Judged) -> None: ...
    def scored(self, monitor: Monitor, result: WindowResult) -> None: ...
    def transitions(self, monitor: Monitor, events: tuple[AlarmEvent, ...], state: AlarmState) -> None: ...
    def received(self, monitor: Monitor, block: Block, received: int, begun: int) -> None: ...


class Monitor:
    """Owns the machine's pipeline and alarm. Thread-safe: capture, worker and control threads call in."""

    def __init__(
        self,
        machine: config.Machine,
        state_dir: Path,
        pipeline: Callable[[Baseline | None], Pipeline],
        alarm_state: AlarmState,
        sink: Sink,
        synced: Callable[[], bool],
        shadow: Shadow | None = None,
    ) -> None:
        self.machine = machine
        self.channel = machine.source.channel
        self.baselines = BaselineStore(state_dir, machine.id)
        self.last: WindowResult | None = None
        self.windows = 0
        self.dropped = 0
        self.lag_s: float | None = None
        self.fault = ""  # why the active baseline cannot be used
        self.scoring_error = ""  # why the last window could not be scored
        self.source_error = ""
        self._make_pipeline = pipeline
        self._sink = sink
        self._synced = synced
        self._shadow = shadow
        self._lock = threading.RLock()  # alarm, pipeline
        self._queue: deque[Window] = deque()
        self._queue_lock = threading.Lock()
        self._windower: Windower | None = None
        self._rate_hz, self._lead_s = 0, 0.0  # of the last block
        held = math.ceil(machine.window_s / machine.hop_s)  # windows whose vote the lanes may hold back
        self._votes_s = machine.window_s + (machine.votes[1] - 1 + held) * machine.hop_s
        self._health = ChainHealth()
        self._speed: tuple[Speed, float] | None = None  # as told, and when (monotonic)
        self.told = ReportedState(machine)
        self._sampler = chain.Sampler()
        self._mixer = MixerWatch(machine.source)
        self._drift_s = time.monotonic() + KEEP_DRIFT_S  # when it is kept again
        self._dropped_s = -math.inf  # monotonic, of the last one
        self._adopt(alarm_state)
        self.calibrator = Calibrator(
            machine, self.baselines, lambda: self._pipeline, self.promote, self._windows_since, self._mixer, shadow
        )

    def introduce(self) -> None:
        """The machine begins: store and broker hold its alarm state from the first moment."""
        with self._lock:
            self._sink.introduce(self)

    # -- from the capture thread

    @property
    def busy(self) -> bool:
        """As many windows wait for the worker as one more block may safely add to."""
        return len(self._queue) >= QUEUE // 2

    def offer(self, block: Block) -> None:
        """Cut windows from the block and queue them. A queue that is full loses its oldest, counted."""
        try:
            if self._windower is None:
                machine = self.machine
                rates = dict(self._pipeline.rates)
                rates |= self._shadow.rates(block.rate_hz, rates) if self._shadow is not None else {}
                self._windower = Windower(block.rate_hz, machine.window_s, machine.hop_s, rates)
            received = self._windower.received
            windows = self._windower.push(block, self.channel)
        except AsdError as exc:
            self.source_failed(str(exc))
            return
        self.source_error = ""
        if block.rate_hz != self._rate_hz:
            self._rate_hz, self._lead_s = block.rate_hz, reach_s(block.rate_hz, self._pipeline.rates)
        self._sink.received(self, block, received, self._windower.begun)
        with self._queue_lock:
            self._queue.extend(windows)
            while len(self._queue) > QUEUE:
                self._queue.popleft()
                self.dropped += 1
                self._dropped_s = time.monotonic()

    def source_ended(self) -> None:
        if self._windower is not None:
            with self._queue_lock:
                self._queue.extend(self._windower.flush())

    def source_failed(self, line: str) -> None:
        if line != self.source_error:
            log.error("no usable sound", machine=self.machine.id, error=line)
        self.source_error = line

    def tell_speed(self, payload: bytes) -> None:
        """From the machine's `speed_topic`."""
        from asd_agent.mechanism.speed import from_message

        speed = from_message(payload)
        if speed is None:
            log.warning("speed not understood", machine=self.machine.id, payload=payload[:80])
        else:
            self._speed = speed, time.monotonic()

    # -- from the worker

    def _known_speed(self) -> Speed | None:
        """As last told; what is old says nothing of this window."""
        if self._speed is None or time.monotonic() - self._speed[1] > SPEED_HOLDS_S:
            return None
        return self._speed[0]

    def take(self) -> Window | None:
        with self._queue_lock:
            return self._queue.popleft() if self._queue else None

    def score(self, window: Window) -> None:
        """Describe, judge, and pass on what changed."""
        speed = self._known_speed()
        operating, changing = self.told.of(window)
        pipeline = self._pipeline
        description = self._sampler.add(
            window,
            pipeline.describe(window, speed, operating, changing),
            chain.EVERY_WHILE_LEARNING_S if self.calibrator.running else None,
        )
        result = pipeline.blame(window, pipeline.judge(description), speed)
        with self._lock:
            if self._pipeline is not pipeline:  # another baseline was promoted meanwhile
                result = self._pipeline.blame(window, self._pipeline.judge(description), speed)
            if result.p_value is not None:  # before the alarm: its clip shall tell of the window that raised it
                self._sink.judged(self, judged(window, description, result, speed, self._pipeline))
            self._unknown_state.see(description, result)
            for vote in self._lanes.admit(result) if self._lanes is not None else (result,):
                self._commit(self._alarm.update(vote, self._synced()))
        self.scoring_error = ""
        self.windows += 1
        self.last = result
        self.lag_s = max(time.monotonic() - window.monotonic_s, 0.0)
        self._health.see(result, description.chain)
        self.calibrator.hear(window, description, speed)
        self._sink.scored(self, result)
        if self._shadow is not None:
            self._shadow.see(window, description, speed, self._synced())

    def tick(self) -> None:
        """Once a second: a shelving that ends, a calibration that waits in vain."""
        with self._lock:
            self._commit(self._alarm.tick(time.time(), self._synced()))
        self.calibrator.tick()
        self._mixer.tick()
        if self._lanes is not None and time.monotonic() >= self._drift_s:
            self._drift_s = time.monotonic() + KEEP_DRIFT_S
            driftfile.save(self.baselines.folder, self.baseline_version, self._lanes.drifts)

    # -- from people

    @property
    def alarm_state(self) -> AlarmState:
        with self._lock:
            return self._alarm.state

    def acknowledge(self, by: str, comment: str) -> str:
        self._command(lambda alarm: alarm.acknowledge(by, comment, time.time(), self._synced()))
        return f"{self.machine.id}: acknowledged"

    def shelve(self, until_utc_s: float, by: str, reason: str) -> str:
        self._command(lambda alarm: alarm.shelve(until_utc_s, reason, by, time.time(), self._synced()))
        until = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(until_utc_s))
        return f"{self.machine.id}: shelved until {until} UTC"

    def unshelve(self, by: str, reason: str) -> str:
        self._command(lambda alarm: alarm.unshelve(by, reason, time.time(), self._synced()))
        return f"{self.machine.id}: no longer shelved"

    def out_of_service(self, on: bool, by: str, reason: str) -> str:
        self._command(lambda alarm: alarm.out_of_service(on, by, reason, time.time(), self._synced()))
        return f"{self.machine.id}: {'out of service' if on else 'back in service'}"

    def _command(self, act: Callable[[Alarm], tuple[AlarmEvent, ...]]) -> None:
        with self._lock:
            self._commit(act(self._alarm))

    def _commit(self, events: tuple[AlarmEvent, ...]) -> None:
        """Under the lock, so that what is stored and sent last is what happened last."""
        if events:
            self._sink.transitions(self, events, self._alarm.state)

    # -- baselines

    def promote(self, version: str | None) -> str:
        return self._switch(version or self.baselines.pointers().candidate, lambda: self.baselines.promote(version))

    def rollback(self) -> str:
        return self._switch(self.baselines.pointers().previous, self.baselines.rollback)

    def _switch(self, version: str | None, point: Callable[[], Pointers]) -> str:
        """Point to another baseline, unless it cannot be used: then the active one stays. Raises BaselineError."""
        with self._lock:
            if version is not None:
                self._make_pipeline(self.baselines.load(version))
            pointers = point()
            self._adopt(self._alarm.state)
        if self.fault:
            raise BaselineError(self.fault)
        return f"{self.machine.id}: active baseline is now {pointers.active}"

    def _adopt(self, alarm_state: AlarmState) -> None:
        """Build pipeline and alarm on the active baseline; one that cannot be used leaves a fault, not a judgement."""
        self.fault = ""
        try:
            self._pipeline = self._make_pipeline(self.baselines.active())
        except BaselineError as exc:
            self.fault = str(exc)
            log.error("baseline refused", machine=self.machine.id, error=self.fault)
            self._pipeline = self._make_pipeline(None)
        self._alarm = Alarm(self.machine, self._pipeline.thresholds, alarm_state)
        baseline = self._pipeline.baseline
        states = (
            [state.name for state in baseline.manifest.states]
            if baseline and baseline.manifest.states_reported
            else None
        )
        self._unknown_state = UnknownState(self.machine, states)
        self._lanes = None
        if baseline is not None:
            drifts = driftfile.load(self.baselines.folder, baseline.manifest.version)
            self._lanes = Lanes(self._pipeline, baseline, drifts)

    @property
    def baseline_version(self) -> str:
        baseline = self._pipeline.baseline
        return baseline.manifest.version if baseline else ""

    @property
    def unknown_state(self) -> str:
        """ "new operating state since 10:42, 37 windows", or empty."""
        return self._unknown_state.words

    def _windows_since(self, since_utc_s: float | None) -> tuple[list[Description], str]:
        with self._lock:
            return self._unknown_state.windows_since(since_utc_s)

    @property
    def threshold(self) -> float | None:
        """The score that a window must reach to be anomalous."""
        return self._pipeline.threshold_score

    # -- evidence

    @property
    def lead_s(self) -> float:
        """How far before its beginning a window is made from."""
        return self._lead_s

    @property
    def clip_s(self) -> float:
        """Of sound, from which all windows that may vote in an alarm can be made again."""
        return self._lead_s + self._votes_s

    def about(self) -> dict[str, Any]:
        """What the sidecar of a clip says of the scores in it."""
        return {"made_with": made_with(self._pipeline, self.baselines)}

    # -- status

    def available(self, source: SourceStatus) -> bool:
        """The source delivers, and what can be used."""
        return source.available and not self.source_error

    def health(self, source: SourceStatus) -> list[tuple[Health, str]]:
        baseline = self._pipeline.baseline
        findings = self._health.judge(source, baseline.manifest.chain if baseline else None)
        learnt = baseline.manifest.chain.mixer if baseline else {}
        findings += [(Health.OUT_OF_SPECIFICATION, line) for line in self._mixer.changed(learnt)]
        findings += [(Health.FAILURE, line) for line in (self.source_error, self.scoring_error) if line]
        if self.fault:
            findings.append((Health.FAILURE, self.fault))
        elif baseline is None:
            findings.append((Health.FUNCTION_CHECK, "not calibrated: run `asd-agent calibrate`"))
        if self.calibrator.running:
            findings.append((Health.FUNCTION_CHECK, "calibrating"))
        if self._lanes is not None and self._lanes.drifting:
            words = f"{self._lanes.drifting}: look at machine and microphone, or calibrate again"
            findings.append((Health.MAINTENANCE_REQUIRED, words))
        if self.machine.operating is not None and not self.told.now:
            words = f"no operating state is told on {self.machine.operating.topic}: it is found from the sound"
            findings.append((Health.MAINTENANCE_REQUIRED, words))
        if time.monotonic() - self._dropped_s < DROPPED_RECENTLY_S:
            findings.append((Health.MAINTENANCE_REQUIRED, f"{self.dropped} windows dropped: the box is too slow"))
        return findings

    def status(self, source: SourceStatus) -> dict[str, Any]:
        """What `asd-agent status` and the health message show; builtins only."""
        last = self.last
        findings = self.health(source)
        return {
            "id": self.machine.id,
            "available": self.available(source),
            "source": msgspec.to_builtins(source),
            "state": last.state if last else State.LEARNING,
            "score": last.score if last else None,
            "p_value": last.p_value if last else None,
            "threshold": self.threshold,
            "reason": last.reason if last else "",
            "operating": last.operating if last else "",
            "reported_operating": self.told.now,
            "unknown_state": self.unknown_state,
            "transients_last_hour": self._lanes.events if self._lanes is not None else 0,
            "alarm": msgspec.to_builtins(self.alarm_state),
            "health": {"status": worst(findings), "reasons": [words for _, words in findings]},
            "level_dbfs": last.quality.level_dbfs if last else None,
            "reported_shaft_hz": speed.hz if (speed := self._known_speed()) else None,
            "last_window": rfc3339(last.utc_s) if last else None,
            "windows": self.windows,
            "dropped": self.dropped,
            "lag_s": self.lag_s,
            "baseline": self.baseline_version or None,
            "shadow": self._shadow.status() if self._shadow is not None else None,
        }
