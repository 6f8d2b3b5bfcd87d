"""Alarm events to the notifiers that other packages bring, each in a thread of its own with a bounded queue.

They come after the store and the broker and can hold nothing up: an event that a notifier refuses again and again, or
that finds its queue full, is dropped for that notifier, counted and logged. It stays in the store.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from asd_agent import config
from asd_agent.config import plugins
from asd_agent.errors import UsageError
from asd_agent.types import AlarmEvent

if TYPE_CHECKING:
    from asd_agent.api.plugins import Notifier

QUEUE = 1000
TRIES = 5
PAUSE_S = 2.0  # before the second try, twice as long before each further one
CLOSE_S = 5.0
log = structlog.get_logger()


class Notifiers:
    """Those of a configuration."""

    def __init__(self, settings: Sequence[config.Notifier], pause_s: float = PAUSE_S) -> None:
        """Raises UsageError for a plug-in that is not installed or does not take its options."""
        made = [(item.name, _made(item)) for item in settings]
        self._threads = [_Thread(name, notifier, pause_s) for name, notifier in made]

    def tell(self, event: AlarmEvent) -> None:
        if event.notify:
            for thread in self._threads:
                thread.put(event)

    @property
    def dropped(self) -> int:
        return sum(thread.dropped for thread in self._threads)

    def close(self) -> None:
        """What waits is still told, as far as a few seconds allow."""
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.join(CLOSE_S)


class _Thread(threading.Thread):
    def __init__(self, name: str, notifier: Notifier, pause_s: float) -> None:
        super().__init__(name=f"notifier {name}", daemon=True)
        self.dropped = 0
        self._plugin, self._notifier, self._pause_s = name, notifier, pause_s
        self._queue: queue.Queue[AlarmEvent | None] = queue.Queue(QUEUE)
        self._closing = threading.Event()
        self.start()

    def put(self, event: AlarmEvent) -> None:
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._drop(event, "its queue is full")

    def stop(self) -> None:
        self._closing.set()
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            log.warning("a notifier ends with a full queue", notifier=self._plugin)

    def run(self) -> None:
        while (event := self._queue.get()) is not None:
            self._tell(event)
        try:
            self._notifier.close()
        except Exception:
            log.exception("a notifier broke while closing", notifier=self._plugin)

    def _tell(self, event: AlarmEvent) -> None:
        for attempt in range(TRIES):
            try:
                self._notifier.notify(event)
                return
            except Exception as exc:  # noqa: BLE001 - whatever goes wrong in it is the plug-in's
                log.warning("a notifier failed", notifier=self._plugin, alarm=event.alarm_id, error=repr(exc))
            if attempt + 1 < TRIES:
                self._closing.wait(self._pause_s * 2**attempt)
        self._drop(event, f"it failed {TRIES} times")

    def _drop(self, event: AlarmEvent, why: str) -> None:
        self.dropped += 1
        log.error("an event was not notified", notifier=self._plugin, alarm=event.alarm_id, event_id=event.id, why=why)


def _made(item: config.Notifier) -> Notifier:
    factory = plugins.load("asd_agent.notifiers", item.name)
    try:
        made: Notifier = factory(**item.options)
    except Exception as exc:
        raise UsageError(f"notifiers: {item.name}: {exc!r}") from exc
    return made
