"""What is said of machines again and again: scores, signal chains, availability. Nothing of it waits on disk."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import structlog

from asd_agent import config
from asd_agent.publish import payloads
from asd_agent.publish.interval import ScoreInterval
from asd_agent.publish.messages import Messages
from asd_agent.publish.mqtt import Publisher
from asd_agent.store import Message, Store
from asd_agent.types import WindowResult

if TYPE_CHECKING:
    from asd_agent.service.machine import Machine
    from asd_agent.service.status import MachineStatus

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

    def score(self, machine: Machine, score: payloads.Score) -> list[Message]:
        """The window, or once per interval its most anomalous one."""
        due = self._intervals.setdefault(machine.id, ScoreInterval(self._interval_s)).add(score)
        if due is None:
            return []
        message = self._messages.of(due)
        self._publisher.publish(message)
        return [message]

    def health(self, machine: MachineStatus, health: Message) -> list[Message]:
        """The signal chain, and the machine's availability when it changed."""
        messages, name, available = [health], machine.machine, machine.health.source_available
        if self._available.get(name) is not available:
            self._available[name] = available
            messages.append(self._messages.machine_availability(name, available))
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


def score_of(messages: Messages, machine: Machine, result: WindowResult) -> payloads.Score:
    """A window as it is said to others."""
    return messages.score(
        machine.id,
        result,
        baseline=machine.active.version,
        score_limit=machine.active.pipeline.threshold_score,
        unknown_state=machine.active.unknown_state,
    )
