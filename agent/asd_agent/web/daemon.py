"""The daemon, asked over its control socket without holding up the page."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio.to_thread

from asd_agent import config
from asd_agent.errors import AsdError
from asd_agent.service.client import typed
from asd_agent.service.control import DaemonAbsent, ask
from asd_agent.service.status import AgentStatus

STATUS_S = 10.0  # the longest wait for a status
FRESH_S = 0.4  # a status that is not older answers everybody


class Daemon:
    """One status serves all viewers, so that many of them cost the daemon no more than one."""

    def __init__(self, settings: config.Config) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._status: AgentStatus | None = None
        self._error = ""
        self._asked_s = 0.0

    async def ask(self, verb: str, *, timeout_s: float = 60.0, **args: Any) -> Any:
        """The answer's data. Raises AsdError with the daemon's own line, DaemonAbsent."""
        return await anyio.to_thread.run_sync(lambda: ask(self._settings, verb, timeout_s, **args))

    async def status(self) -> tuple[AgentStatus | None, str]:
        """The newest status, or None and why there is none."""
        async with self._lock:
            if time.monotonic() - self._asked_s > FRESH_S:
                try:
                    self._status = typed(await self.ask("status", timeout_s=STATUS_S), AgentStatus)
                    self._error = ""
                except DaemonAbsent:
                    self._status, self._error = None, "the agent is not running"
                except AsdError as exc:
                    self._status, self._error = None, str(exc)
                self._asked_s = time.monotonic()
            return self._status, self._error
