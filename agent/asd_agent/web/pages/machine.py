"""One machine: its scores over time, its operating states and alarms, and what is heard just now."""

from __future__ import annotations

import time

import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asd_agent import config
from asd_agent.errors import StoreError, UsageError
from asd_agent.types import AlarmEvent, utc_s
from asd_agent.web.pages.overview import feed
from asd_agent.web.series import Series, series
from asd_agent.web.site import Site, answer, site
from asd_agent.whatif import Episode, episodes, span_of

POINTS = 800
DAY_S = 86_400.0
RECENT_S = 6 * 3600.0
DETECTOR_WINDOWS = 5000  # of which the detectors are shown, at most
EVENTS = 20_000


class Detectors(msgspec.Struct, frozen=True, kw_only=True):
    """Columns [n] of z by detector; null where a window was not judged."""

    utc_s: list[float]
    z: dict[str, list[float | None]]
    complete: bool  # False: only the newest windows of the time


async def machine_page(request: Request) -> Response:
    here, machine = site(request), _machine(request)
    status, _ = await here.daemon.status()
    card = next(c for c in await feed(request).cards() if c.id == machine.id)
    found = status.machine(machine.id) if status is not None else None
    episodes_, _ = await anyio.to_thread.run_sync(lambda: alarms_of(here, machine, 0.0, time.time()))
    return here.page(
        request, "machine.html", card=card, machine=machine, status=found, alarms=episodes_[:-11:-1],
        live_sound=here.web.live_sound, first=await anyio.to_thread.run_sync(_first_s, here, machine),
    )  # fmt: skip


async def scores(request: Request) -> Response:
    """GET /api/v1/machines/M/scores?since=&until=&points= -> `Series`."""
    here, machine = site(request), _machine(request)
    since, until = span(request)
    points = _points(request)
    found: Series = await anyio.to_thread.run_sync(
        lambda: series(here.reader, here.limits, machine, since, until, points)
    )
    return answer(found)


async def detectors(request: Request) -> Response:
    """GET /api/v1/machines/M/detectors?since=&until= -> `Detectors`."""
    here, machine = site(request), _machine(request)
    since, until = span(request)
    rows = await anyio.to_thread.run_sync(lambda: here.reader.scores(machine.id, since, until, limit=DETECTOR_WINDOWS))
    names = list(dict.fromkeys(name for row in rows for name in row.detectors))
    return answer(
        Detectors(
            utc_s=[row.utc_s for row in rows],
            z={n: [row.detectors[n][1] if n in row.detectors else None for row in rows] for n in names},
            complete=len(rows) < DETECTOR_WINDOWS,
        )
    )


async def alarms(request: Request) -> Response:
    """GET /api/v1/machines/M/alarms?since=&until= -> [`AlarmSpan`]."""
    here, machine = site(request), _machine(request)
    since, until = span(request)
    found, _ = await anyio.to_thread.run_sync(lambda: alarms_of(here, machine, since, until))
    return answer([span_of(episode) for episode in found])


def alarms_of(
    here: Site, machine: config.Machine, since: float, until: float
) -> tuple[list[Episode], list[AlarmEvent]]:
    """The alarms that were present in that time, and all events. Raises StoreError."""
    if not here.reader.path.exists():
        return [], []
    events = here.reader.events(machine=machine.id, limit=EVENTS)
    found = [e for e in episodes(events) if e.raised_utc_s <= until and (e.cleared_utc_s or until) >= since]
    return found, events


def _first_s(here: Site, machine: config.Machine) -> float:
    """When the newest six hours begin, or the agent's first window in them; the present where there is none."""
    now = time.time()
    try:
        parts = (h.utc_s for h in here.reader.history(machine.id, now - RECENT_S))
        return min((float(t.min()) for t in parts if len(t)), default=now)
    except StoreError:
        return now


def span(request: Request) -> tuple[float, float]:
    """`since` and `until` of the query, in seconds since 1970; the last day without them. Raises UsageError."""
    until = _time(request, "until", time.time())
    since = _time(request, "since", until - DAY_S)
    if not since < until:
        raise UsageError("since has to be before until")
    return since, until


def _time(request: Request, key: str, default: float) -> float:
    text = request.query_params.get(key)
    if text is None:
        return default
    try:
        return max(utc_s(text), 0.0)
    except (ValueError, OverflowError) as exc:
        raise UsageError(f"{key}: {text!r} is no time as in RFC 3339, for example 2026-03-27T12:00:00Z") from exc


def _points(request: Request) -> int:
    text = request.query_params.get("points", str(POINTS))
    if not text.isdecimal():
        raise UsageError(f"points: {text!r} is not a whole number")
    return int(text)


def _machine(request: Request) -> config.Machine:
    return site(request).machine(request.path_params["machine"])


ROUTES = [
    Route("/machines/{machine}", machine_page),
    Route("/api/v1/machines/{machine}/scores", scores),
    Route("/api/v1/machines/{machine}/detectors", detectors),
    Route("/api/v1/machines/{machine}/alarms", alarms),
]
