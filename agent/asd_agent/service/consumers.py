"""Who is told beside the native topics: Home Assistant (discovery), Sparkplug hosts, and the hooks of `notify`."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from asd_agent import config
from asd_agent.errors import StoreError
from asd_agent.publish import payloads
from asd_agent.publish.homeassistant import Discovery
from asd_agent.publish.messages import Messages
from asd_agent.publish.notify import Hooks
from asd_agent.publish.requests import Handler
from asd_agent.publish.sparkplug import EdgeNode
from asd_agent.store import Message, Store

log = structlog.get_logger()


class Consumers:
    """Of one configuration; `tell` and `notices` never block."""

    def __init__(
        self, settings: config.Config, store: Store, messages: Messages, handler: Handler, hooks: Hooks
    ) -> None:
        self._machines, self._store, self._hooks = settings.machines, store, hooks
        self._discovery: Discovery | None = None
        self._edge: EdgeNode | None = None
        if settings.mqtt is None:
            return
        self._discovery = Discovery(settings.mqtt, messages.topics)
        if settings.mqtt.sparkplug is not None:
            ids = [machine.id for machine in settings.machines]
            self._edge = EdgeNode(settings.mqtt, settings.mqtt.sparkplug, messages, ids, handler)

    @staticmethod
    def key(settings: config.Config) -> object:
        """Equal for configurations that make the same consumers."""
        return settings.mqtt, settings.notify, settings.machines

    @property
    def topics(self) -> frozenset[str]:
        """To subscribe to: Home Assistant says there that it has started."""
        return frozenset([self._discovery.birth_topic] if self._discovery and self._discovery.active else [])

    def start(self) -> None:
        self._drop_strange_notices()
        self._hooks.start()
        if self._edge is not None:
            self._edge.start()
        held = self._held()
        self.tell([message for message in held if message.topic.endswith("/alarm")])
        self._announce(held)

    def stop(self) -> None:
        self._hooks.stop()
        if self._edge is not None:
            self._edge.stop()

    def hear(self, topic: str, payload: bytes) -> None:
        """A message on one of `topics`."""
        if topic in self.topics and payload == payloads.ONLINE:
            self._announce([])

    def tell(self, messages: Sequence[Message]) -> None:
        """Native messages of machines, as they go out."""
        self._hooks.wake()
        if self._edge is not None:
            for message in messages:
                self._edge.tell(message)

    def notices(self, messages: Sequence[Message]) -> list[Message]:
        """For the outbox: what the hooks are to be told of these events and states of signal chains."""
        told = [payloads.decode(m.payload) for m in messages if m.payload.startswith(b"{")]
        return [n for p in told if isinstance(p, payloads.Event | payloads.Health) for n in self._hooks.notices(p)]

    def notify(self, messages: Sequence[Message]) -> None:
        """The notices of messages that are committed with no alarm event."""
        try:
            if notices := self.notices(messages):
                self._store.outbox.put(notices)
        except StoreError as exc:
            log.warning("hooks are not told", error=str(exc))

    def _drop_strange_notices(self) -> None:
        """What was meant for hooks that are not configured any more."""
        try:
            dropped = self._store.outbox.keep_hooks(self._hooks.topics)
        except StoreError as exc:
            log.warning("notices of hooks that are gone still wait", error=str(exc))
            return
        if dropped:
            log.warning("notices of hooks that are no longer configured are dropped", notices=dropped)

    def _held(self) -> list[Message]:
        """What the broker retains of us, as far as it went through the outbox."""
        try:
            return self._store.outbox.retained()
        except StoreError as exc:
            log.warning("retained messages cannot be read", error=str(exc))
            return []

    def _announce(self, held: Sequence[Message]) -> None:
        """Discovery: what is new or gone beside what is held; with nothing held, everything."""
        if self._discovery is None:
            return
        try:
            self._store.outbox.put(self._discovery.changes(self._machines, held))
        except StoreError as exc:
            log.warning("discovery not sent", error=str(exc))
