"""Long computations in processes of their own: the page stays small and quick, and what breaks there breaks there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec

from asd_agent.errors import AsdError
from asd_agent.web.child import Failed

T = TypeVar("T", bound=msgspec.Struct)
AT_ONCE = 1
LONGEST_S = 300.0


class Children:
    """Runs `python -m asd_agent.web.child`, one at a time."""

    def __init__(self, config_path: str) -> None:
        self._path = config_path
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def command(self, *arguments: str) -> bytes:
        """The standard output of `asd-agent ARGUMENTS`, which may end with 1. Raises AsdError with its line."""
        async with self._turn:
            process = await _started("asd_agent", *arguments, errors=True)
            try:
                out, said = await asyncio.wait_for(process.communicate(), LONGEST_S)
            except TimeoutError:
                raise AsdError(f"{arguments[0]}: gave up after {LONGEST_S:.0f} s") from None
            finally:
                if process.returncode is None:
                    process.kill()
        if not out:
            lines = said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise AsdError(lines[-1].removeprefix("asd-agent: "))
        return out

    async def lines(self, what: str, *arguments: str) -> AsyncIterator[bytes]:
        """What a child says, line by line; it ends when nobody listens any more."""
        process = await _started("asd_agent.web.child", what, *arguments)
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                yield line
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def run(self, kind: type[T], what: str, *arguments: str) -> T:
        """The answer. Raises AsdError with the child's line."""
        async with self._turn:
            process = await _started("asd_agent.web.child", what, self._path, *arguments)
            try:
                out, _ = await asyncio.wait_for(process.communicate(), LONGEST_S)
            except TimeoutError:
                raise AsdError(f"{what}: gave up after {LONGEST_S:.0f} s") from None
            finally:
                if process.returncode is None:
                    process.kill()
        try:
            answer: T | Failed = msgspec.json.decode(out, type=kind | Failed)
        except msgspec.DecodeError as exc:
            raise AsdError(f"{what}: ended with exit code {process.returncode} and no answer") from exc
        if isinstance(answer, Failed):
            raise AsdError(answer.error)
        return answer


async def _started(module: str, *arguments: str, errors: bool = False) -> asyncio.subprocess.Process:
    pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdin=none, stdout=pipe, stderr=pipe if errors else none
    )
