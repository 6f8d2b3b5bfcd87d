"""Set-up: what is wrong here, the sound cards with a level, a configuration from a few answers, the log.

The checks and the list of sound cards are the commands `doctor` and `devices`, each in a process of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from asd_agent.errors import UsageError
from asd_agent.setup import Answers, configuration
from asd_agent.setup.answers import host_id
from asd_agent.setup.install import write
from asd_agent.web.security.users import Role
from asd_agent.web.site import Site, answer, site

LOG_LINES = 300
LEVEL_S = 120


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration from the answers, and where it was written; empty = nowhere, take it over by hand."""

    text: str
    path: str = ""


async def setup_page(request: Request) -> Response:
    here = _operators(request)
    return here.page(request, "setup.html", host=host_id(), first=here.first, path=here.path)


async def start(request: Request) -> Response:
    """Without a configuration there is nothing but set-up."""
    return RedirectResponse(f"{site(request).prefix}/setup", 303)


async def doctor(request: Request) -> Response:
    """GET /api/v1/doctor: what `asd-agent doctor --json` finds."""
    here = _operators(request)
    return _json(await here.children.command("doctor", "-c", here.path, "--json"))


async def devices(request: Request) -> Response:
    """GET /api/v1/devices: what `asd-agent devices --json` lists."""
    return _json(await _operators(request).children.command("devices", "--json"))


async def log(request: Request) -> Response:
    """GET /api/v1/log: the newest lines of the daemon's log."""
    return answer(await _operators(request).daemon.ask("log", lines=LOG_LINES))


async def level(request: Request) -> Response:
    """GET /live-level?source=NAME: server-sent events with the level of a sound card that nobody else holds."""
    here, source = _operators(request), request.query_params.get("source", "default")

    async def stream() -> AsyncIterator[bytes]:
        async for line in here.children.lines("level", here.path, source, str(LEVEL_S)):
            yield b"data: " + line.rstrip() + b"\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def make(request: Request) -> Response:
    """POST /api/v1/configuration with `Answers` as JSON -> `Made`. It is written where there is none yet."""
    here = site(request)
    try:
        answers = msgspec.json.decode(await request.body(), type=Answers)
    except msgspec.DecodeError as exc:
        raise UsageError(str(exc)) from exc
    text = configuration(answers)
    if here.first:
        text += f'\nweb: {{listen: "{here.web.listen}"}}  # this page\n'
    if not here.first or request.query_params.get("look") is not None:
        return answer(Made(text=text))
    path = Path(here.path)
    if path.exists():
        raise UsageError(f"{path}: exists already; start the page anew to use it")
    await anyio.to_thread.run_sync(write, path, text, 0o644)
    request.app.state.restart()
    return answer(Made(text=text, path=str(path)))


def _operators(request: Request) -> Site:
    """What is said here is not for viewers. Raises UsageError."""
    if request.scope["session"].role is not Role.OPERATOR:
        raise UsageError("only an operator may see this")
    return site(request)


def _json(out: bytes) -> Response:
    return Response(out, media_type="application/json")


ROUTES = [
    Route("/setup", setup_page),
    Route("/api/v1/doctor", doctor),
    Route("/api/v1/devices", devices),
    Route("/api/v1/log", log),
    Route("/live-level", level),
    Route("/api/v1/configuration", make, methods=["POST"]),
]
FIRST = [Route("/", start)]
