"""Where results and transitions go: the store first, then the broker; and the sound around alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from asd_agent import config
from asd_agent.errors import StoreError
from asd_agent.evidence.clip import Clip, Judged
from asd_agent.evidence.recorder import Evidence
from asd_agent.publish.interval import ScoreInterval
from asd_agent.publish.messages import Messages
from asd_agent.publish.mqtt import Publisher, Told
from asd_agent.publish.requests import Handler
from asd_agent.service import clock
from asd_agent.service.health import Health
from asd_agent.service.journal import ChainLog, log_transition
from asd_agent.store import Message, Store
from asd_agent.types import AlarmEvent, AlarmState, Block, Samples, WindowResult

if TYPE_CHECKING:
    from asd_agent.service.machine import Monitor

log = structlog.get_logger()


class Sink:
    """The sink of all monitors. Thread-safe; what the broker cannot take now waits in the outbox."""

    def __init__(self, settings: config.Config, store: Store, handler: Handler, told: Told) -> None:
        """`handler` answers requests; `told` hears what arrives on the topics of the configuration."""
        self._store = store
        self._handler, self._told = handler, told
        self._settings = settings
        self._evidence = Evidence(settings.state_dir, settings.agent.evidence, draw=_draw)
        self._publisher: Publisher | None = None
        self._intervals: dict[str, ScoreInterval] = {}
        self._available: dict[str, bool] = {}
        self._chains = ChainLog()
        self._connect(settings)

    def _connect(self, settings: config.Config) -> None:
        base = settings.mqtt.base_topic if settings.mqtt else "asd"
        self._messages = Messages(settings.agent.id, base, clock.synchronized)
        if settings.mqtt is None:
            self._publisher = None
        else:
            self._publisher = Publisher(
                settings.mqtt,
                self._messages,
                self._store.outbox,
                self._handler,
                topics=settings.subscribed_topics,
                told=self._told,
            )
            self._publisher.start()

    def reload(self, settings: config.Config) -> None:
        """Connect anew when the broker's settings changed."""
        before, self._settings = self._settings, settings
        if (settings.mqtt, settings.subscribed_topics) != (before.mqtt, before.subscribed_topics):
            if self._publisher is not None:
                self._publisher.stop()
            self._connect(settings)
            self._available.clear()
            self._intervals.clear()
        if settings.agent.evidence != before.agent.evidence:
            new = Evidence(settings.state_dir, settings.agent.evidence, draw=_draw)
            old, self._evidence = self._evidence, new
            old.close()

    def close(self) -> None:
        """Write the clips in progress; send what waits as far as a few seconds allow, and say offline."""
        self._evidence.close()
        if self._publisher is not None:
            self._publisher.stop()

    # -- from the monitors

    def received(self, monitor: Monitor, block: Block, received: int, begun: int) -> None:
        self._evidence.feed(
            monitor.machine.id,
            block.samples[:, monitor.channel],
            block.rate_hz,
            block.utc_s,
            block.gap,
            received=received,
            begun=begun,
            last=block.last,
            keep_s=monitor.clip_s,
        )

    def judged(self, monitor: Monitor, row: Judged) -> None:
        self._evidence.judged(monitor.machine.id, row)

    def scored(self, monitor: Monitor, result: WindowResult) -> None:
        machine, baseline = monitor.machine.id, monitor.baseline_version
        self._store.add_score(machine, result, baseline)
        if self._publisher is None:
            return
        seconds = self._settings.mqtt.score_interval_s if self._settings.mqtt else 0.0
        due = self._intervals.setdefault(machine, ScoreInterval(seconds)).add(result)
        if due is not None:
            worst, states = due
            self._publisher.publish(
                self._messages.score(
                    machine,
                    worst,
                    baseline=baseline,
                    threshold=monitor.threshold,
                    states=states,
                    unknown_state=monitor.unknown_state,
                )
            )

    def transitions(self, monitor: Monitor, events: tuple[AlarmEvent, ...], state: AlarmState) -> None:
        """On disk first, with what is to be sent; the publisher takes it from there."""
        version = monitor.baseline_version
        kept = [self._with_clip(monitor, msgspec.structs.replace(event, baseline=version)) for event in events]
        messages = [message for event in kept for message in self._messages.of_event(event, state)]
        self._store.commit_events(kept, state, self._outgoing(messages))
        for event in kept:
            log_transition(event)

    def _with_clip(self, monitor: Monitor, event: AlarmEvent) -> AlarmEvent:
        """No trouble with the evidence may keep an alarm back."""
        try:
            return self._evidence.attach(event, monitor.about, monitor.lead_s)
        except Exception:
            log.exception("no evidence of an alarm", machine=event.machine)
            return event

    def introduce(self, monitor: Monitor) -> None:
        """A machine begins: the broker shall hold its alarm state from the first moment."""
        state = monitor.alarm_state
        self._store.set_state(
            monitor.machine.id, state, self._outgoing([self._messages.alarm(monitor.machine.id, state)])
        )

    def _outgoing(self, messages: list[Message]) -> list[Message]:
        """Without a broker in the configuration nothing may gather in the outbox."""
        return messages if self._settings.mqtt is not None else []

    # -- from the main thread

    def health(self, status: dict[str, Any]) -> None:
        """Publish each machine's signal chain, and its availability when it changed."""
        self._evidence.maintain()
        for machine in status["machines"]:
            self._chains.see(machine["id"], Health(machine["health"]["status"]), machine["health"]["reasons"])
        if self._publisher is None:
            return
        for machine in status["machines"]:
            source = machine["source"]
            self._publisher.retain(
                self._messages.health(
                    machine["id"],
                    status=machine["health"]["status"],
                    reasons=tuple(machine["health"]["reasons"]) + tuple(status["findings"]),
                    source_available=machine["available"],
                    source_detail=source["detail"],
                    restarts=source["restarts"],
                    gaps=source["gaps"],
                    last_window=machine["last_window"],
                    windows_scored=machine["windows"],
                    windows_dropped=machine["dropped"],
                    lag_s=machine["lag_s"],
                    level_dbfs=machine["level_dbfs"],
                    baseline=machine["baseline"] or "",
                    outbox=status["outbox"],
                    scores_dropped=status["scores_dropped"],
                )
            )
            if self._available.get(machine["id"]) is not machine["available"]:
                self._available[machine["id"]] = machine["available"]
                self._publisher.retain(self._messages.machine_availability(machine["id"], machine["available"]))

    def forget(self, machine_id: str) -> None:
        """A machine is no longer configured."""
        self._evidence.finish(machine_id)
        self._intervals.pop(machine_id, None)
        self._available.pop(machine_id, None)
        self._chains.forget(machine_id)
        if self._publisher is None:
            return
        try:
            self._publisher.forget(machine_id)
        except StoreError as exc:
            log.warning(
                "the broker still holds the state of a machine that is gone", machine=machine_id, error=str(exc)
            )

    def status(self) -> dict[str, Any]:
        health = self._store.health()
        connection = self._publisher.state if self._publisher is not None else None
        return {
            "mqtt": msgspec.to_builtins(connection) if connection is not None else None,
            "outbox": health.outbox,
            "scores_dropped": health.scores_dropped + (self._publisher.dropped if self._publisher is not None else 0),
            "findings": [*health.findings, *self._evidence.findings],
        }


def _draw(samples: Samples, clip: Clip) -> bytes:
    from asd_agent.evidence.picture.alarm import draw

    return draw(samples, clip)
