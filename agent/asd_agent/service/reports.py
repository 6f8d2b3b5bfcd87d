"""What is said of machines again and again: scores, signal chains, availability. Nothing of it waits on disk."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import structlog

from asd_agent import config
from asd_agent.publish.interval import ScoreInterval
from asd_agent.publish.messages import Messages
from asd_agent.publish.mqtt import Publisher
from asd_agent.store import Message, Store
from asd_agent.types import WindowResult

if TYPE_CHECKING:
    from asd_agent.service.machine import Machine
    from asd_agent.service.status import MachineStatus, SinkStatus

PICTURE_COLOURS = 64
log = structlog.get_logger()


class Reports:
    """To one publisher; each method returns what it has sent."""

    def __init__(self, settings: config.Mqtt, store: Store, messages: Messages, publisher: Publisher) -> None:
        self._interval_s = settings.score_interval_s
        self._picture_bytes = 1000 * settings.picture_max_kb
        self._store, self._messages, self._publisher = store, messages, publisher
        self._intervals: dict[str, ScoreInterval] = {}
        self._available: dict[str, bool] = {}

    def score(self, machine: Machine, result: WindowResult) -> list[Message]:
        """The window, or once per interval its most anomalous one."""
        due = self._intervals.setdefault(machine.id, ScoreInterval(self._interval_s)).add(result)
        if due is None:
            return []
        worst, states = due
        message = self._messages.score(
            machine.id,
            worst,
            baseline=machine.active.version,
            threshold=machine.active.pipeline.threshold_score,
            states=states,
            unknown_state=machine.active.unknown_state,
        )
        self._publisher.publish(message)
        return [message]

    def health(self, machine: MachineStatus, health: Message) -> list[Message]:
        """The signal chain, and the machine's availability when it changed."""
        messages = [health]
        if self._available.get(machine.id) is not machine.available:
            self._available[machine.id] = machine.available
            messages.append(self._messages.machine_availability(machine.id, machine.available))
        for message in messages:
            self._publisher.retain(message)
        return messages

    def picture(self, machine_id: str, png: bytes) -> None:
        """Of the last alarm, where it is not larger than wanted. Raises StoreError."""
        if not self._picture_bytes:
            return
        png = _reduced(png)
        if len(png) <= self._picture_bytes:
            self._store.outbox.put([self._messages.picture(machine_id, png)])
        else:
            log.warning(
                "picture of an alarm not published: mqtt.picture_max_kb", machine=machine_id, kb=len(png) // 1000
            )

    def forget(self, machine_id: str) -> None:
        """Raises StoreError."""
        self._intervals.pop(machine_id, None)
        self._available.pop(machine_id, None)
        self._publisher.forget(machine_id)


def _reduced(png: bytes) -> bytes:
    """With 64 colours a spectrogram looks the same and takes a third of the bytes."""
    from PIL import Image

    data = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(PICTURE_COLOURS, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    return data.getvalue()


def health_message(messages: Messages, machine: MachineStatus, sink: SinkStatus) -> Message:
    """The status of a machine's signal chain as it is published."""
    return messages.health(
        machine.id,
        status=machine.health.status,
        reasons=(*machine.health.reasons, *sink.findings),
        source_available=machine.available,
        source_detail=machine.source.detail,
        restarts=machine.source.restarts,
        gaps=machine.source.gaps,
        last_window=machine.last_window,
        windows_scored=machine.windows,
        windows_dropped=machine.dropped,
        lag_s=machine.lag_s,
        level_dbfs=machine.level_dbfs,
        baseline=machine.baseline or "",
        outbox=sink.outbox,
        scores_dropped=sink.scores_dropped,
    )
