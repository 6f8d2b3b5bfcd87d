"""What the machine's own controller reports over MQTT: operating state and shaft speed."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec
import structlog

from asd_agent import config
from asd_agent.scoring.pipeline import Reported
from asd_agent.types import Window

if TYPE_CHECKING:
    from asd_agent.mechanism.speed import Speed

LONGEST = 60  # characters of a name
SPEED_HOLDS_S = 120.0  # after the last message on the speed topic
REMEMBERED = 64  # changes: more than windows can wait
log = structlog.get_logger()


class ReportedState:
    """Which state was reported when. The MQTT thread reports, the worker asks; the lock guards the changes."""

    def __init__(self, machine: config.Machine) -> None:
        self._machine = machine.id
        self._settings = machine.operating
        self._changes: deque[tuple[float, str]] = deque(maxlen=REMEMBERED)  # monotonic, the state from then on
        self._last_s = 0.0  # of the last message, changed or not
        self._lock = threading.Lock()

    def report(self, payload: bytes, monotonic_s: float | None = None) -> None:
        """A message on the topic."""
        name = parsed(payload)
        if name is None:
            log.warning("operating state not understood", machine=self._machine, payload=payload[:80])
            return
        now = time.monotonic() if monotonic_s is None else monotonic_s
        with self._lock:
            expired = self._expired(now)
            self._last_s = now
            if expired or not self._changes or self._changes[-1][1] != name:
                self._changes.append((now, name))

    def of(self, window: Window) -> tuple[str, bool]:
        """The state during the window (empty = not known), and whether it changed meanwhile.

        What was reported too long ago says nothing: then the state is found from the sound, as without a topic.
        """
        with self._lock:
            changes = tuple(self._changes)
        if self._settings is None or not changes:
            return "", False
        end_s, settle_s = window.monotonic_s, self._settings.settle_s
        begin_s = end_s - window.duration_s
        if self._expired(end_s):
            return "", False
        before = [name for at_s, name in changes if at_s <= begin_s - settle_s]
        later = [at_s for at_s, _ in changes if begin_s - settle_s < at_s <= end_s + settle_s]
        if later:
            return "", True
        return (before[-1], False) if before else ("", False)

    @property
    def now(self) -> str:
        """For the status."""
        with self._lock:
            return "" if not self._changes or self._expired(time.monotonic()) else self._changes[-1][1]

    def _expired(self, now_s: float) -> bool:
        holds_s = self._settings.holds_s if self._settings is not None else 0.0
        return now_s - self._last_s > holds_s


class ReportedValues:
    """State and speed of one machine. Thread-safe."""

    def __init__(self, machine: config.Machine) -> None:
        self._machine = machine
        self.operating = ReportedState(machine)
        self._speed: tuple[Speed, float] | None = None  # and when it came (monotonic); replaced whole

    def receive(self, topic: str, payload: bytes) -> None:
        """A message on a topic of the configuration; others are ignored."""
        if self._machine.mechanism is not None and self._machine.mechanism.speed_topic == topic:
            self.report_speed(payload)
        if self._machine.operating is not None and self._machine.operating.topic == topic:
            self.operating.report(payload)

    def report_speed(self, payload: bytes) -> None:
        from asd_agent.mechanism.speed import from_message

        speed = from_message(payload)
        if speed is None:
            log.warning("speed not understood", machine=self._machine.id, payload=payload[:80])
        else:
            self._speed = speed, time.monotonic()

    @property
    def speed(self) -> Speed | None:
        """As last reported; an old report says nothing of the present."""
        last = self._speed
        return last[0] if last is not None and time.monotonic() - last[1] <= SPEED_HOLDS_S else None

    def of(self, window: Window) -> Reported:
        operating, changing = self.operating.of(window)
        return Reported(speed=self.speed, operating=operating, changing=changing)


def parsed(payload: bytes) -> str | None:
    """Plain words, a JSON string or number, or JSON with `state`; None when there is no name in it."""
    try:
        data = msgspec.json.decode(payload)
    except RecursionError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        data = payload.decode(errors="replace")
    if isinstance(data, dict):
        data = data.get("state")
    if isinstance(data, bool) or not isinstance(data, str | int | float):
        return None
    name = str(data).strip()
    fits = 0 < len(name) <= LONGEST and "/" not in name and name.isprintable()
    return name if fits else None
