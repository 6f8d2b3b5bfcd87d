"""What open pages are told while somebody looks: the machines as they change, and new alarm events.

One task asks the daemon twice a second, whatever the number of viewers, and sleeps when there is none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
import msgspec
import structlog

from asd_agent import config
from asd_agent.errors import StoreError
from asd_agent.service import client
from asd_agent.service.status import AgentStatus
from asd_agent.types import EventKind
from asd_agent.web import words
from asd_agent.web.card import Card, absent, card
from asd_agent.web.series import series
from asd_agent.web.site import Site
from asd_agent.web.spark import HOURS, POINTS, SHORTEST_S, Spark, spark

EVERY_S = 0.5
SPARK_EVERY_S = 15.0
WAITING = 32  # messages of a viewer who does not read; then the connection ends, and the browser comes back
BEAT_S = 15.0
log = structlog.get_logger()


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One message to the pages."""

    cards: list[Card] = []
    findings: tuple[str, ...] = ()
    alarm: str = ""  # a sentence that is read out: an alarm was raised or has gone


class Feed:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._viewers: set[asyncio.Queue[bytes | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._cards: dict[str, Card] = {}
        self._sparks: dict[str, tuple[float, Spark]] = {}
        self._last: dict[str, tuple[str, str, str]] = {}  # machine -> last change; time and id of its last alarm
        self._calibrating: dict[str, float] = {}

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    async def cards(self) -> list[Card]:
        """All machines as they are now."""
        status, why = await self._site.daemon.status()
        return [await self._card(machine, status, why) for machine in self._site.settings.machines]

    @asynccontextmanager
    async def messages(self) -> AsyncIterator[asyncio.Queue[bytes | None]]:
        """A viewer's queue of messages; None = the end."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING)
        self._viewers.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            yield queue
        finally:
            self._viewers.discard(queue)

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        for queue in list(self._viewers):
            self._end(queue)

    async def _run(self) -> None:
        while self._viewers:
            began = time.monotonic()
            try:
                told = await self._changes()
            except Exception:
                log.exception("no news for the viewers")
                told = None
            if told is not None:
                self._send(b"data: " + msgspec.json.encode(told) + b"\n\n")
            await asyncio.sleep(max(EVERY_S - (time.monotonic() - began), 0.05))

    async def _changes(self) -> Told | None:
        changed, spoken = [], ""
        for new in await self.cards():
            old = self._cards.get(new.id)
            if new != old:
                changed.append(new)
                self._cards[new.id] = new
                if old is not None and old.headline != new.headline:
                    spoken = f"{new.id}: {new.headline}"
        return Told(cards=changed, alarm=spoken) if changed else None

    def _send(self, message: bytes) -> None:
        for queue in list(self._viewers):
            if queue.full():
                self._end(queue)
            else:
                queue.put_nowait(message)

    def _end(self, queue: asyncio.Queue[bytes | None]) -> None:
        self._viewers.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)

    async def _card(self, machine: config.Machine, status: AgentStatus | None, why: str) -> Card:
        found = status.machine(machine.id) if status is not None else None
        if found is None:
            made = absent(machine, why or "the agent does not know this machine: restart or reload it")
        else:
            made = card(machine, found)
        when, alarm_id = await self._last_alarm(machine, found.alarm.time if found is not None else "")
        return msgspec.structs.replace(
            made, spark=await self._spark(machine), last_alarm=when, last_alarm_id=alarm_id,
            calibrating=await self._calibration(machine, found is not None and "calibrating" in found.health.reasons),
        )  # fmt: skip

    async def _calibration(self, machine: config.Machine, running: bool) -> float | None:
        if not running:
            return None
        progress = await anyio.to_thread.run_sync(client.calibration, self._site.settings, machine.id)
        return round(progress.done, 3)

    async def _spark(self, machine: config.Machine) -> Spark:
        made_s, made = self._sparks.get(machine.id, (-1e9, Spark()))
        if time.monotonic() - made_s > SPARK_EVERY_S:
            try:
                made = await anyio.to_thread.run_sync(self._draw, machine)
            except StoreError:
                pass  # no database yet
            self._sparks[machine.id] = time.monotonic(), made
        return made

    def _draw(self, machine: config.Machine) -> Spark:
        """The last hours; less while the agent is younger."""
        site, now = self._site, time.time()
        since = now - HOURS * 3600
        found = series(site.reader, site.limits, machine, since, now, POINTS)
        first = found.utc_s[0] if found.utc_s else now
        if first > since + (now - since) / 4:
            found = series(site.reader, site.limits, machine, min(first, now - SHORTEST_S), now, POINTS)
        return spark(found)

    async def _last_alarm(self, machine: config.Machine, changed: str) -> tuple[str, str]:
        """Time and id of the newest alarm, read again when the daemon says that something has happened."""
        known = self._last.get(machine.id)
        if known is None or known[0] != changed:
            try:
                events = await anyio.to_thread.run_sync(lambda: self._site.reader.events(0.0, machine.id, 200))
            except StoreError:
                events = []
            raised = next((e for e in reversed(events) if e.kind is EventKind.RAISED), None)
            when = (words.stamp(raised.utc_s), raised.alarm_id) if raised is not None else ("", "")
            known = self._last[machine.id] = (changed, *when)
        return known[1:]
