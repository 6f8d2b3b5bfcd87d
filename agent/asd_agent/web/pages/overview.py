"""All machines at a glance, live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from asd_agent.web.feed import BEAT_S, Feed
from asd_agent.web.site import site


def feed(request: Request) -> Feed:
    found = request.app.state.feed
    assert isinstance(found, Feed)
    return found


async def overview(request: Request) -> Response:
    here = site(request)
    status, why = await here.daemon.status()
    cards = await feed(request).cards()
    return here.page(request, "overview.html", cards=cards, status=status, why=why)


async def events(request: Request) -> Response:
    """Server-sent events: `Told` as JSON, whenever something changes."""

    async def stream() -> AsyncIterator[bytes]:
        async with feed(request).messages() as queue:
            yield b"retry: 2000\n\n"
            while True:
                try:
                    message = await asyncio.wait_for(queue.get(), BEAT_S)
                except TimeoutError:
                    message = b": still here\n\n"
                if message is None:
                    return
                yield message

    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


ROUTES = [Route("/", overview), Route("/events", events)]
