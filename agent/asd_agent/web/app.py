"""The ASGI application: routes, the guard in front of them, one line for what goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from asd_agent.errors import AsdError, UsageError
from asd_agent.service.control import DaemonAbsent
from asd_agent.web.feed import Feed
from asd_agent.web.pages import actions, alarm, api, calibrate, live, login, machine, overview, setup, whatif
from asd_agent.web.security.guard import Guard
from asd_agent.web.site import STATIC, Site, answer

THREADS = 8  # for the store and the control socket; more viewers wait in turn


def make_app(site: Site) -> Starlette:
    feed = Feed(site)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield
        feed.close()

    static = Mount(f"/static/{site.release}", _Static(directory=STATIC))
    whole = [
        *overview.ROUTES,
        *machine.ROUTES,
        *alarm.ROUTES,
        *calibrate.ROUTES,
        *whatif.ROUTES,
        *live.ROUTES,
        *actions.ROUTES,
        *api.ROUTES,
        *setup.ROUTES,
        *login.ROUTES,
        static,
    ]
    routes = [*setup.FIRST, *setup.ROUTES, Route("/healthz", api.healthz), *login.ROUTES, static]
    app = Starlette(
        routes=routes if site.first else whole,
        middleware=[
            Middleware(Guard, web=site.web, users=site.users, sessions=site.sessions, attempts=site.attempts),
            Middleware(GZipMiddleware, minimum_size=500),
        ],
        exception_handlers={AsdError: _refused, HTTPException: _missing, Exception: _broken},
        lifespan=lifespan,
    )
    app.state.site, app.state.feed = site, feed
    return app


class _Static(StaticFiles):
    """The path holds a fingerprint of the content: browsers may keep it."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


def _refused(request: Request, exc: Exception) -> Response:
    status_code = 503 if isinstance(exc, DaemonAbsent) else 400 if isinstance(exc, UsageError) else 409
    return _say(request, str(exc), status_code)


def _missing(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return _say(request, "There is no such page." if exc.status_code == 404 else exc.detail, exc.status_code)


def _broken(request: Request, exc: Exception) -> Response:
    """uvicorn logs the traceback."""
    return _say(request, "Internal error: see the log of the page.", 500)


def _say(request: Request, words: str, status_code: int) -> Response:
    """To a program as JSON, to a person as a page."""
    if "text/html" not in request.headers.get("accept", ""):
        return answer({"error": words}, status_code)
    site: Site = request.app.state.site
    return site.page(request, "error.html", status_code, message=words)
