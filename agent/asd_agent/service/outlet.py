"""Where results and transitions go: the store first, then the broker; and the sound around alarms."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from asd_agent import config
from asd_agent import clock
from asd_agent.publish.interval import ScoreInterval
from asd_agent.publish.messages import Messages
from asd_agent.publish.mqtt import Publisher
from asd_agent.store import Store
from asd_agent.store.evidence import Evidence
from asd_agent.types import AlarmEvent, AlarmState, Block, WindowResult

if TYPE_CHECKING:
    from asd_agent.service.monitor import Monitor

Handler = Callable[[str, dict[str, Any]], dict[str, Any]]


class Outlet:
    """The sink of all monitors. Thread-safe; what the broker cannot take now waits in the outbox."""

    def __init__(self, settings: config.Config, store: Store) -> None:
        self._store = store
        self._settings = settings
        self._evidence = Evidence(settings.state_dir, settings.agent.evidence)
        self._messages = Messages(
            settings.agent.id, settings.mqtt.base_topic if settings.mqtt else "asd", clock.synchronized
        )
        self._publisher: Publisher | None = None
        self._intervals: dict[str, ScoreInterval] = {}
        self._available: dict[str, bool] = {}
        self._lock = threading.Lock()
