"""One machine in the daemon: blocks in from its capture thread, windows scored by the worker, and its parts.

windows      WindowQueue      sound that waits                      owner: capture thread and worker
active       ActiveBaseline   pipeline, decision, alarm             owner: its lock
alarm        AlarmCommands    what people do to the alarm
calibrator   Calibrator       every way to a new baseline           owner: its lock
reported     ReportedValues   what the controller says over MQTT    owner: its lock
live         LiveSound        the newest sound, while somebody looks owner: its lock
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.capture import SourceStatus
from asd_agent.decide.persistence import BLOCK_S
from asd_agent.errors import AsdError
from asd_agent.publish.messages import Messages
from asd_agent.service.active import ActiveBaseline, MakePipeline
from asd_agent.service.alarm_commands import AlarmCommands
from asd_agent.service.calibrator import Calibrator
from asd_agent.service.health import ChainHealth, Finding, worst
from asd_agent.service.live import LiveSound
from asd_agent.service.mixer_watch import MixerWatch
from asd_agent.service.reported import ReportedValues
from asd_agent.service.reports import score_of
from asd_agent.service.shadow import Shadow
from asd_agent.service.sink import Sink
from asd_agent.service.status import MachineStatus, SinkStatus
from asd_agent.service.window_queue import WindowQueue
from asd_agent.types import AlarmState, Block, ChainStatus, Window, WindowResult, rfc3339
from asd_agent.windowing.signal_chain import EVERY_WHILE_CALIBRATING_S, Sampler

log = structlog.get_logger()


class Machine:
    """Thread-safe: capture, worker, main and control threads call in."""

    def __init__(
        self, settings: config.Machine, state_dir: Path, pipeline: MakePipeline, alarm_state: AlarmState, sink: Sink,
        synced: Callable[[], bool], shadow: Shadow | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.id, self.channels = settings.id, settings.channels
        self.baselines = BaselineStore(state_dir, settings.id)
        self.active = ActiveBaseline(self, pipeline, alarm_state, sink, synced)
        self.alarm = AlarmCommands(settings.id, self.active, synced)
        self.reported = ReportedValues(settings)
        self.windows = WindowQueue(settings, self._rates)
        self.live = LiveSound(settings.source)
        self.last: WindowResult | None = None
        self.scored = 0  # windows
        self.lag_s: float | None = None
        self.scoring_error = ""  # why the last window could not be scored
        self.source_error = ""
        self._sink, self._synced, self._shadow = sink, synced, shadow
        self._health = ChainHealth(settings.reference is not None)
        self._sampler = Sampler()
        self._mixer = MixerWatch(settings.source)
        self.calibrator = Calibrator(self.active, self._mixer, shadow, settings)
        held = math.ceil(settings.window_s / settings.hop_s)  # windows whose vote may be held back
        votes_s = settings.window_s + (settings.votes[1] - 1 + held) * settings.hop_s
        self._deciding_s = max(votes_s, BLOCK_S)

    # -- from the capture thread

    @property
    def busy(self) -> bool:
        return self.windows.busy

    def offer(self, block: Block) -> None:
        try:
            received, begun = self.windows.offer(block)
        except AsdError as exc:
            self.source_failed(str(exc))
            return
        self.source_error = ""
        self._sink.received(self, block, received, begun)
        self.live.feed(block)

    def source_ended(self) -> None:
        self.windows.flush()

    def source_failed(self, line: str) -> None:
        if line != self.source_error:
            log.error("no usable sound", machine=self.id, error=line)
        self.source_error = line

    # -- from the worker

    def score(self, window: Window) -> None:
        """Score a window and pass it on to everybody who follows the machine."""
        every_s = EVERY_WHILE_CALIBRATING_S if self.calibrator.running else None
        step = self.active.score(window, self.reported.of(window), lambda d: self._sampler.add(window, d, every_s))
        self.scoring_error = ""
        self.scored += 1
        self.last = step.result
        self.lag_s = max(time.monotonic() - window.monotonic_s, 0.0)
        self._health.see(step.result, step.description)
        self.calibrator.see(step)
        if self._shadow is not None:
            self._shadow.see(step, self._synced())

    # -- from the main thread

    def tick(self, jump_s: float = 0.0) -> None:
        """Once a second: a shelving that ends, a calibration that waits in vain. `jump_s`: of the wall clock."""
        self.active.tick(jump_s)
        self.calibrator.tick()
        self._mixer.tick()

    def available(self, source: SourceStatus) -> bool:
        """The source delivers, and what can be used."""
        return source.available and not self.source_error

    def health(self, source: SourceStatus) -> list[Finding]:
        """Everything that wants attention; empty = good."""
        baseline = self.active.pipeline.baseline
        findings = self._health.findings(source, baseline.manifest.chain if baseline else None)
        mixer = baseline.manifest.chain.mixer if baseline else {}
        findings += [Finding(ChainStatus.OUT_OF_SPECIFICATION, line) for line in self._mixer.changed(mixer)]
        findings += [Finding(ChainStatus.FAILURE, line) for line in (self.source_error, self.scoring_error) if line]
        if self.active.fault:
            findings.append(Finding(ChainStatus.FAILURE, self.active.fault))
        elif baseline is None:
            findings.append(Finding(ChainStatus.FUNCTION_CHECK, "not calibrated: run `asd-agent calibrate`"))
        if self.calibrator.running:
            findings.append(Finding(ChainStatus.FUNCTION_CHECK, "calibrating"))
        wanted = [
            f"normal sound ({name}) has drifted by {by:+.1f} standard deviations since calibration: look at machine "
            "and microphone, or calibrate again"
            for name, by in self.active.drifting.items()
        ]
        if baseline is not None and self.settings.reference is not None and not baseline.manifest.knows_room:
            wanted.append("calibrated without the reference microphone: calibrate again")
        if self.settings.operating is not None and not self.reported.operating.now:
            topic = self.settings.operating.topic
            wanted.append(f"no operating state is reported on {topic}: it is found from the sound")
        if self.windows.dropped_recently:
            wanted.append(f"{self.windows.dropped} windows dropped: this host is too slow")
        return findings + [Finding(ChainStatus.MAINTENANCE_REQUIRED, line) for line in wanted]

    def status(self, source: SourceStatus, sink: SinkStatus, messages: Messages, clip: str = "") -> MachineStatus:
        """What `asd-agent status`, the page and the health message show. `clip`: path of the alarm's clip."""
        last, speed, findings = self.last, self.reported.speed, self.health(source)
        health = messages.health(
            self.id,
            status=worst(findings),
            reasons=(*(finding.words for finding in findings), *sink.findings),
            source_available=self.available(source),
            source_detail=source.detail,
            restarts=source.restarts,
            gaps=source.gaps,
            last_window_end=rfc3339(last.utc_s + last.duration_s) if last else None,
            windows_scored=self.scored,
            windows_dropped=self.windows.dropped,
            lag_s=self.lag_s,
            level_dbfs=last.quality.level_dbfs if last else None,
            baseline=self.active.version,
            outbox=sink.outbox,
            scores_dropped=sink.scores_dropped,
        )
        return MachineStatus(
            machine=self.id,
            alarm=messages.alarm(self.id, self.active.alarm_state, clip),
            health=health,
            score=score_of(messages, self, last) if last else None,
            reported_operating=self.reported.operating.now,
            reported_shaft_hz=speed.hz if speed else None,
            transients_last_hour=self.active.transients,
            shadow=self._shadow.status() if self._shadow is not None else None,
        )

    @property
    def clip_s(self) -> float:
        """Of sound, from which all windows that may decide an alarm can be made again."""
        return self.windows.lead_s + self._deciding_s

    def _rates(self, rate_hz: int) -> dict[int, int]:
        """What the encoders of the machine and of its shadow want of a source of that rate."""
        rates = dict(self.active.pipeline.rates)
        return rates | (self._shadow.rates(rate_hz, rates) if self._shadow is not None else {})
