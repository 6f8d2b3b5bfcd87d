"""What the agent knows as payloads, and payloads as messages on their topics."""

from __future__ import annotations

import hashlib
import math
import time
import uuid
from collections.abc import Callable
from typing import Any, Self, TypeVar

import msgspec

from asd_agent import config
from asd_agent.publish import payloads
from asd_agent.publish.payloads import encode
from asd_agent.publish.topics import Topics
from asd_agent.store import Message
from asd_agent.types import AlarmEvent, AlarmState, ChainStatus, WindowResult, rfc3339

BASE_TOPIC = "asd"
P = TypeVar("P", payloads.Score, payloads.Alarm, payloads.Health)


class Messages:
    """Makes every message of one agent. `time_synced` says whether the clock is known to be right."""

    def __init__(self, agent: str, base_topic: str, time_synced: Callable[[], bool]) -> None:
        self.topics = Topics(base_topic, agent)
        self._time_synced = time_synced

    @classmethod
    def of_agent(cls, settings: config.Config, time_synced: Callable[[], bool] = lambda: True) -> Self:
        """Also without a broker: then for what is printed."""
        return cls(settings.agent.id, settings.mqtt.base_topic if settings.mqtt else BASE_TOPIC, time_synced)

    def of(self, payload: payloads.Score | payloads.Alarm | payloads.Event | payloads.Health) -> Message:
        """A payload of a machine on its topic, as `payloads.CHANNELS` says."""
        channel = payloads.CHANNELS[type(payload)]
        return Message(
            topic=self.topics.of_machine(payload.machine, channel.name),
            payload=encode(payload),
            qos=channel.qos,
            retain=channel.retain,
            expiry_s=channel.expiry_s,
        )

    def availability(self, online: bool) -> Message:
        return _retained(self.topics.availability, payloads.ONLINE if online else payloads.OFFLINE)

    def machine_availability(self, machine: str, online: bool) -> Message:
        return _retained(self.topics.machine_availability(machine), payloads.ONLINE if online else payloads.OFFLINE)

    def score(
        self, machine: str, result: WindowResult, *, baseline: str = "", score_limit: float | None = None,
        unknown_state: str = "",
    ) -> payloads.Score:  # fmt: skip
        """Of one window."""
        payload = payloads.Score(
            **self.header(result.utc_s + result.duration_s),
            machine=machine,
            window=result.index,
            duration_s=round(result.duration_s, 3),
            state=result.state,
            window_level=result.level,
            score=_digits(result.score),
            score_limit=_digits(score_limit),
            p_value=_digits(result.p_value),
            quality=result.quality.causes,
            level_dbfs=_digits(result.quality.level_dbfs),
            embedding_distance=_digits(result.embedding_distance),
            embedding_p=_digits(result.embedding_p),
            mechanism_p=_digits(result.mechanism_p),
            detectors=tuple(
                payloads.Detector(
                    name=d.name,
                    distance=_digits(d.distance) or 0.0,
                    z=_digits(d.z) or 0.0,
                    p_value=_digits(d.p_value) or 0.0,
                )
                for d in result.detectors
            ),
            reason=result.reason,
            baseline=baseline,
            operating=result.operating,
            nuisance=result.nuisance,
            transient_p=_digits(result.transient_p),
            transient_at_s=_digits(result.transient_at_s),
            unknown_state=unknown_state,
        )
        return _identified(payload)

    def event(self, event: AlarmEvent) -> payloads.Event:
        return payloads.Event(
            id=event.id,
            agent=self.topics.agent,
            time=rfc3339(event.utc_s),
            time_synced=event.time_synced,
            machine=event.machine,
            alarm_id=event.alarm_id,
            event_type=event.kind,
            level=event.level,
            reason=event.reason,
            trigger=event.trigger,
            deciding_windows=event.deciding_windows,
            score=_digits(event.score),
            by=event.by,
            comment=event.comment,
            until=_time(event.until_utc_s),
            evidence=event.evidence,
            baseline=event.baseline,
            suppressed=not event.notify,
            nuisances=event.nuisances,
            nearest_cause=event.nearest_cause,
            deviation=event.deviation,
            grounds=event.grounds,
            part=event.part,
        )

    def alarm(self, machine: str, state: AlarmState, evidence: str = "") -> payloads.Alarm:
        """`evidence`: path of the clip, empty where there is none."""
        payload = payloads.Alarm(
            **self.header(state.changed_utc_s or None),
            machine=machine,
            level=state.known_level,
            condition=state.condition,
            alarm_id=state.alarm_id,
            since=_time(state.since_utc_s),
            latched=state.latched,
            acknowledged=state.acknowledged,
            acknowledged_by=state.acknowledged_by,
            comment=state.comment,
            shelved_until=_time(state.shelved_until_utc_s),
            shelve_reason=state.shelve_reason,
            out_of_service=state.out_of_service,
            reason=state.reason,
            evidence=evidence,
            trigger=state.trigger,
            part=state.part,
        )
        return _identified(payload)

    def of_event(self, event: AlarmEvent, state: AlarmState, evidence: str = "") -> list[Message]:
        """For the outbox with an event: the event, unless it is only to be recorded, and the new state."""
        changed = self.of(self.alarm(event.machine, state, evidence))
        return [self.of(self.event(event)), changed] if event.notify else [changed]

    def health(
        self, machine: str, *, status: ChainStatus, reasons: tuple[str, ...], source_available: bool,
        level_dbfs: float | None = None, lag_s: float | None = None, **more: Any,
    ) -> payloads.Health:  # fmt: skip
        """The arguments are the fields of payloads.Health."""
        return _identified(
            payloads.Health(
                **self.header(None), machine=machine, status=status, reasons=reasons,
                source_available=source_available, level_dbfs=_digits(level_dbfs), lag_s=_digits(lag_s), **more,
            )
        )  # fmt: skip

    def picture(self, machine: str, png: bytes) -> Message:
        """Of the last alarm; retained."""
        return _retained(self.topics.picture(machine), png)

    def response(
        self,
        topic: str,
        *,
        data: object = None,
        error: str | None = None,
        transaction: object = None,
        correlation: bytes = b"",
    ) -> Message:
        """An answer; an error when there is one."""
        payload = payloads.Response(
            **self.header(None) | {"id": uuid.uuid4().hex},
            status="ok" if error is None else "error",
            data=data,
            error=error,
            transaction=transaction,
        )
        return Message(topic=topic, payload=encode(payload), correlation=correlation)

    def forget(self, machine: str) -> list[Message]:
        """For a machine that is no longer configured: the broker forgets what it retains of it."""
        return self.forget_topic(self.topics.alarm(machine))

    def forget_topic(self, alarm_topic: str) -> list[Message]:
        """The same of a machine that is known by the topic of its alarm state, perhaps under another agent's name."""
        machine = alarm_topic.rsplit("/", 1)[0]
        messages = [_retained(f"{machine}/{name}", b"") for name in ("availability", "alarm", "health", "picture")]
        root = machine.rsplit("/", 1)[0]
        return messages if root == self.topics.root else [*messages, _retained(f"{root}/availability", b"")]

    def header(self, utc_s: float | None) -> dict[str, Any]:
        """The fields that every payload begins with, the id apart; `utc_s` None = now."""
        return {
            "id": "",
            "agent": self.topics.agent,
            "time": rfc3339(time.time() if utc_s is None else utc_s),
            "time_synced": self._time_synced(),
        }


def _identified(payload: P) -> P:
    """The id follows from the content: what is said again, over MQTT or as a status, has the same id."""
    return msgspec.structs.replace(payload, id=hashlib.blake2b(encode(payload), digest_size=16).hexdigest())


def _retained(topic: str, payload: bytes) -> Message:
    return Message(topic=topic, payload=payload, retain=True)


def _time(utc_s: float) -> str | None:
    return rfc3339(utc_s) if utc_s else None


def _digits(value: float | None) -> float | None:
    """Four digits are more than a score is worth; JSON knows no infinity."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
