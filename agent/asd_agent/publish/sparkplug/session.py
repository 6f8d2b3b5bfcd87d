"""What an edge node says, message by message: births, data, deaths, their sequence numbers. No network, no clock.

Sparkplug 3.0.0, chapters 4 (topics), 5 (operational behaviour) and 6 (payloads).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from asd_agent import __version__
from asd_agent.publish.sparkplug import metrics
from asd_agent.publish.sparkplug.metrics import MACHINE, TYPES, Values
from asd_agent.publish.sparkplug.wire import DataType, Metric, Payload, encode
from asd_agent.store import Message

NAMESPACE = "spBv1.0"
REBIRTH = "Node Control/Rebirth"
BACKLOG = 1000  # changes of alarms that wait for a connection


class Device:
    """One machine: the values as last known, and whether the host has been told that it lives."""

    def __init__(self, first_alias: int) -> None:
        self.values = metrics.initial()
        self.alive = True
        self.aliases = {definition.name: first_alias + i for i, definition in enumerate(MACHINE)}
        self.names = {alias: name for name, alias in self.aliases.items()}


class Session:
    """Not thread-safe. Messages must be sent in the order in which they are made: each carries the next number."""

    def __init__(self, group: str, node: str, machines: Iterable[str], now_ms: Callable[[], int]) -> None:
        self._group, self._node, self._now_ms = group, node, now_ms
        self._bd_seq = -1
        self._seq = 0
        self._born = False
        self.devices = {name: Device(1 + i * len(MACHINE)) for i, name in enumerate(machines)}
        self._backlog: deque[tuple[str, int, Values]] = deque(maxlen=BACKLOG)

    def will(self) -> Message:
        """NDEATH for the next CONNECT."""
        self._bd_seq = (self._bd_seq + 1) % 256
        self._born = False
        return self.death()

    def death(self) -> Message:
        """NDEATH, with QoS 1 as the will has it; afterwards nothing but a birth may follow."""
        self._born = False
        payload = Payload(self._now_ms(), (self._birth_death_number(),))
        return Message(topic=self.topic("NDEATH"), payload=encode(payload), qos=1)

    def births(self) -> list[Message]:
        """NBIRTH, a DBIRTH for each device that lives, then what happened while there was no connection."""
        self._born, self._seq = True, 255
        now = self._now_ms()
        node = (
            self._birth_death_number(now),
            Metric(False, REBIRTH, timestamp_ms=now, data_type=DataType.BOOLEAN),
            Metric(__version__, "Properties/Version", timestamp_ms=now, data_type=DataType.STRING),
        )
        messages = [self._message("NBIRTH", "", node)]
        messages += [self._device_birth(name) for name, device in self.devices.items() if device.alive]
        while self._backlog:
            messages.append(self._data(*self._backlog.popleft(), historical=True))
        return messages

    def tell(self, machine: str, values: Values, at_ms: int) -> list[Message]:
        """What is known of a machine since then: DDATA with what has changed. Before the birth it is remembered."""
        device = self.devices.get(machine)
        if device is None:
            return []
        changed = {name: value for name, value in values.items() if device.values[name] != value}
        device.values |= changed
        if not changed:
            return []
        if self._born and device.alive:
            return [self._data(machine, at_ms, changed)]
        if any(name.startswith("Alarm/") for name in changed):
            self._backlog.append((machine, at_ms, changed))
        return []

    def available(self, machine: str, alive: bool) -> list[Message]:
        """DDEATH for a machine whose source has gone, DBIRTH when it is back."""
        device = self.devices.get(machine)
        if device is None or device.alive is alive:
            return []
        device.alive = alive
        if not self._born:
            return []
        return [self._device_birth(machine) if alive else self._message("DDEATH", machine, ())]

    def topic(self, kind: str, device: str = "") -> str:
        return "/".join(part for part in (NAMESPACE, self._group, kind, self._node, device) if part)

    def _device_birth(self, name: str) -> Message:
        device, now = self.devices[name], self._now_ms()
        found = [
            Metric(device.values[d.name], d.name, device.aliases[d.name], now, d.data_type, unit=d.unit)
            for d in MACHINE
        ]
        return self._message("DBIRTH", name, found)

    def _data(self, machine: str, at_ms: int, values: Values, *, historical: bool = False) -> Message:
        # The type is advised against in DATA, but Eclipse's JavaScript decoder reads no value without it.
        aliases = self.devices[machine].aliases
        found = [
            Metric(v, alias=aliases[n], timestamp_ms=at_ms, data_type=TYPES[n], historical=historical)
            for n, v in values.items()
        ]
        return self._message("DDATA", machine, found)

    def _message(self, kind: str, device: str, found: Iterable[Metric]) -> Message:
        self._seq = (self._seq + 1) % 256
        payload = Payload(self._now_ms(), tuple(found), self._seq)
        return Message(topic=self.topic(kind, device), payload=encode(payload), qos=0)

    def _birth_death_number(self, now_ms: int | None = None) -> Metric:
        return Metric(self._bd_seq, "bdSeq", timestamp_ms=now_ms, data_type=DataType.INT64)
