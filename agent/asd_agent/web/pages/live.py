"""Live sound for those who look: the page asks the daemon a few times a second, and sends on what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from asd_agent.errors import AsdError
from asd_agent.web.site import site

EVERY_S = 0.25
LONGEST_S = 1800.0  # then the browser asks anew, if somebody still looks


async def live(request: Request) -> Response:
    """GET /live/M: server-sent events with level and spectrogram; `?sound=1` with the sound, where it is allowed."""
    here = site(request)
    machine = here.machine(request.path_params["machine"])
    sound = request.query_params.get("sound") == "1"

    async def stream() -> AsyncIterator[bytes]:
        after = 0
        until = asyncio.get_running_loop().time() + LONGEST_S
        while asyncio.get_running_loop().time() < until:
            try:
                heard = await here.daemon.ask("live", machine=machine.id, after=after, sound=sound, timeout_s=5.0)
            except AsdError as exc:
                yield b"data: " + msgspec.json.encode({"error": str(exc)}) + b"\n\n"
                return
            if heard is not None:
                after = heard["frame"]
                yield b"data: " + msgspec.json.encode(heard) + b"\n\n"
            await asyncio.sleep(EVERY_S)

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


ROUTES = [Route("/live/{machine}", live)]
