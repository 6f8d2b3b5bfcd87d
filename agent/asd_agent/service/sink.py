"""Where results and transitions go: the store first, then the broker; and the sound around alarms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog

from asd_agent import config
from asd_agent.decide.alarm import Events
from asd_agent.errors import StoreError
from asd_agent.evidence.clip import Clip
from asd_agent.evidence.record import made_with, scored_window
from asd_agent.evidence.recorder import ClipRecorder
from asd_agent.publish.messages import Messages
from asd_agent.publish.mqtt import OnMessage, Publisher
from asd_agent.publish.notify import Hooks
from asd_agent.publish.requests import Handler
from asd_agent.scoring.pipeline import Step
from asd_agent.service import clock
from asd_agent.service.alarm_clips import AlarmClips
from asd_agent.service.causes import nearest_cause
from asd_agent.service.clip_request import ClipChunk, ClipRequest, clip_chunk
from asd_agent.service.consumers import Consumers
from asd_agent.service.journal import ChainLog, log_transition
from asd_agent.service.reports import Reports, score_of
from asd_agent.service.status import SinkStatus
from asd_agent.store import Message, Store
from asd_agent.types import AlarmEvent, AlarmState, Block, Samples

if TYPE_CHECKING:
    from asd_agent.service.machine import Machine
    from asd_agent.service.status import AgentStatus

ALL_EVENTS = 1_000_000
log = structlog.get_logger()


class Sink:
    """Of all machines. Thread-safe; what the broker cannot take now waits in the outbox."""

    def __init__(self, settings: config.Config, store: Store, handler: Handler, on_message: OnMessage) -> None:
        """`handler` answers requests; `on_message` gets what arrives on the topics of the configuration."""
        self._store = store
        self._handler, self._on_message = handler, on_message
        self._settings = settings
        self._recorder = ClipRecorder(settings.state_dir, settings.agent.evidence, draw=self._draw)
        self._publisher: Publisher | None = None
        self._clips = AlarmClips(store, settings.state_dir)
        self._reports: Reports | None = None
        self._chains = ChainLog()
        self._connect(settings, Hooks(settings.notify, store.hook_queue))

    def _connect(self, settings: config.Config, hooks: Hooks) -> None:
        self._messages = Messages.of_agent(settings, clock.synchronized)
        self._consumers = Consumers(settings, self._store, self._messages, self._handler, hooks)
        self._publisher = self._reports = None
        if settings.mqtt is not None:
            self._publisher = Publisher(
                settings.mqtt,
                self._messages,
                self._store.outbox,
                self._handler,
                topics=settings.subscribed_topics | self._consumers.topics,
                on_message=self._arrived,
            )
            self._reports = Reports(settings.mqtt, self._store, self._messages, self._publisher)
            self._publisher.start()
        self._consumers.start()

    def _disconnect(self) -> None:
        self._consumers.stop()
        if self._publisher is not None:
            self._publisher.stop()

    def _arrived(self, topic: str, payload: bytes) -> None:
        self._consumers.hear(topic, payload)
        self._on_message(topic, payload)

    def reload(self, settings: config.Config) -> None:
        """Connect anew when the settings of the broker, of those who are told or of what is told changed.

        Raises UsageError for a plug-in that cannot be used; then nothing has changed.
        """
        before = self._settings
        if settings.subscribed_topics != before.subscribed_topics or Consumers.key(settings) != Consumers.key(before):
            hooks = Hooks(settings.notify, self._store.hook_queue)  # may refuse the configuration
            self._disconnect()
            self._connect(settings, hooks)
        self._settings = settings
        if settings.agent.evidence != before.agent.evidence:
            new = ClipRecorder(settings.state_dir, settings.agent.evidence, draw=self._draw)
            old, self._recorder = self._recorder, new
            old.close()

    def close(self) -> None:
        """Write the clips in progress; send what waits as far as a few seconds allow, and say offline."""
        self._recorder.close()
        self._disconnect()

    # -- from the machines

    def received(self, machine: Machine, block: Block, received: int, begun: int) -> None:
        """A block of sound; `received` frames came before it, `begun` of them before its segment."""
        self._recorder.feed(
            machine.id,
            heard(block, machine.channels),
            block.rate_hz,
            block.utc_s,
            block.gap,
            received=received,
            begun=begun,
            last=block.last,
            keep_s=machine.clip_s,
        )

    def scored(self, machine: Machine, step: Step, events: Events, state: AlarmState) -> None:
        """A window, and what it did to the alarm: for the clip first, so that the clip of an alarm holds the window
        that raised it; then the transitions; then the score."""
        if step.result.p_value is not None:
            self._recorder.note(machine.id, scored_window(step, machine.active.pipeline))
        if events:
            about = {
                "nuisances": machine.active.pipeline.nuisances(step.description),
                "nearest_cause": nearest_cause(self._store, machine.id, step.result.detectors),
            }
            self.transitions(machine, tuple(msgspec.structs.replace(e, **about) for e in events), state)
        self._store.add_score(machine.id, step.result, machine.active.version)
        if self._reports is not None:
            self._consumers.tell(self._reports.score(machine, score_of(self._messages, machine, step.result)))

    def transitions(self, machine: Machine, events: Events, state: AlarmState) -> None:
        """On disk first, with what is to be sent; the publisher takes it from there."""
        version = machine.active.version
        kept = [self._with_clip(machine, msgspec.structs.replace(event, baseline=version)) for event in events]
        self._clips.note(kept)
        clip = self._clips.of(machine.id, state)
        messages = [message for event in kept for message in self._messages.of_event(event, state, clip)]
        self._store.commit_events(kept, state, self._outgoing(messages) + self._consumers.notices(messages))
        self._consumers.tell(messages)
        for event in kept:
            log_transition(event)

    def knows_alarm(self, machine: Machine, alarm_id: str) -> bool:
        """Whether it was ever raised. Raises StoreError."""
        return any(event.alarm_id == alarm_id for event in self._store.events(machine=machine.id, limit=ALL_EVENTS))

    def introduce(self, machine: Machine, state: AlarmState) -> None:
        """A machine begins: the broker shall hold its alarm state from the first moment."""
        self._clips.find(machine.id, state)
        message = self._messages.of(self._messages.alarm(machine.id, state, self._clips.of(machine.id, state)))
        self._store.set_state(machine.id, state, self._outgoing([message]))
        self._consumers.tell([message])

    def _with_clip(self, machine: Machine, event: AlarmEvent) -> AlarmEvent:
        """No trouble with the evidence may keep an alarm back."""
        try:
            return self._recorder.attach(
                event,
                lambda: made_with(machine.active.pipeline, machine.baselines),
                machine.windows.lead_s,
            )
        except Exception:
            log.exception("no evidence of an alarm", machine=event.machine)
            return event

    def _draw(self, samples: Samples, clip: Clip) -> bytes:
        """The picture of an alarm, for its clip; the broker holds it too."""
        from asd_agent.evidence.picture.alarm import draw

        png = draw(samples, clip)
        try:
            if self._reports is not None:
                self._reports.picture(clip.event.machine, png)
        except StoreError as exc:
            log.warning("picture of an alarm not published", machine=clip.event.machine, error=str(exc))
        return png

    def clip(self, request: ClipRequest) -> ClipChunk:
        """Raises AsdError."""
        return clip_chunk(request, self._store, self._settings.state_dir)

    def _outgoing(self, messages: list[Message]) -> list[Message]:
        """Without a broker in the configuration nothing may gather in the outbox."""
        return messages if self._settings.mqtt is not None else []

    # -- from the main thread

    def health(self, status: AgentStatus) -> None:
        """Publish each machine's signal chain, and its availability when it changed."""
        self._recorder.maintain(clock.settled_utc_s())
        for machine in status.machines:
            message = self._messages.of(machine.health)
            if self._chains.see(machine.machine, machine.health.status, machine.health.reasons):
                self._consumers.notify([message])
            if self._reports is not None:
                self._consumers.tell(self._reports.health(machine, message))

    def tick(self) -> None:
        """Once a second: the sound of a new alarm must not be lost with the process."""
        self._recorder.save_begun()
        for machine_id, state in self._clips.withdraw(self._recorder.withdrawn()):
            try:
                self._store.outbox.put(self._outgoing([self._messages.of(self._messages.alarm(machine_id, state))]))
            except StoreError as exc:
                log.warning("missing clip not withdrawn", machine=machine_id, error=str(exc))

    def forget_strangers(self, machines: Iterable[str]) -> None:
        """What the broker retains of machines and agent names that were given up while the daemon was not running."""
        if self._publisher is None:
            return
        topics = {self._messages.topics.alarm(machine) for machine in machines}
        try:
            strange = [m.topic for m in self._store.outbox.retained() if m.topic not in topics]
            alarms = [topic for topic in strange if topic.endswith("/alarm")]
            self._store.outbox.put([m for topic in alarms for m in self._messages.forget_topic(topic)])
        except StoreError as exc:
            log.warning("the broker still holds the state of machines that are gone", error=str(exc))

    def forget(self, machine_id: str) -> None:
        """A machine is no longer configured."""
        self._recorder.finish(machine_id)
        self._chains.forget(machine_id)
        if self._reports is None:
            return
        try:
            self._reports.forget(machine_id)
        except StoreError as exc:
            log.warning(
                "the broker still holds the state of a machine that is gone", machine=machine_id, error=str(exc)
            )

    def said_of(self, machine: Machine) -> tuple[Messages, str]:
        """What makes the machine's payloads, and the path of its alarm's clip."""
        return self._messages, self._clips.of(machine.id, machine.active.alarm_state)

    def status(self) -> SinkStatus:
        health = self._store.health()
        dropped = self._publisher.dropped if self._publisher is not None else 0
        return SinkStatus(
            mqtt=self._publisher.state if self._publisher is not None else None,
            outbox=health.outbox,
            scores_dropped=health.scores_dropped + dropped,
            findings=(*health.findings, *self._recorder.findings),
        )


def heard(block: Block, channels: Sequence[int]) -> Samples:
    """[frames], or [frames, 2] with the reference microphone where the block has it."""
    there = [channel for channel in channels if channel < block.samples.shape[1]]
    return block.samples[:, there[0] if len(there) == 1 else there]
