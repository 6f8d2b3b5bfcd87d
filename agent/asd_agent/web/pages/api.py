"""For programs: JSON with the structs of MQTT and the command line, Prometheus metrics, a health check."""

from __future__ import annotations

import anyio.to_thread
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asd_agent.errors import UsageError
from asd_agent.publish.messages import Messages
from asd_agent.publish.payloads import encode
from asd_agent.web.metrics import exposition
from asd_agent.web.pages.overview import feed
from asd_agent.web.site import answer, site

MOST_EVENTS = 1000


async def status(request: Request) -> Response:
    """GET /api/v1/status: as `asd-agent status --json`."""
    here = site(request)
    found, why = await here.daemon.status()
    return answer({"error": why}, 503) if found is None else answer(found)


async def events(request: Request) -> Response:
    """GET /api/v1/events?machine=&limit=: the newest alarm events, as they are published over MQTT."""
    here = site(request)
    machine = request.query_params.get("machine")
    try:
        limit = min(max(int(request.query_params.get("limit", 100)), 1), MOST_EVENTS)
    except ValueError as exc:
        raise UsageError("limit: a whole number") from exc
    found = await anyio.to_thread.run_sync(lambda: here.reader.events(machine=machine, limit=limit))
    messages = Messages.of_agent(here.settings)
    return Response(b"[" + b",".join(encode(messages.event(e)) for e in found) + b"]", media_type="application/json")


async def metrics(request: Request) -> Response:
    here = site(request)
    found, _ = await here.daemon.status()
    return Response(exposition(found, feed(request).viewers), media_type=CONTENT_TYPE_LATEST)


async def healthz(request: Request) -> Response:
    """200 while the page and the daemon answer, 503 without the daemon. Tells nothing else: it needs no log-in."""
    found, _ = await site(request).daemon.status()
    return answer({"page": "ok", "daemon": "ok" if found else "absent"}, 200 if found else 503)


ROUTES = [
    Route("/api/v1/status", status),
    Route("/api/v1/events", events),
    Route("/metrics", metrics),
    Route("/healthz", healthz),
]
