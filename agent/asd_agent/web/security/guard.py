"""In front of every request: host, prefix, who asks, may they, was it meant (CSRF); and the headers behind it."""

from __future__ import annotations

import base64
import binascii
import hmac
from urllib.parse import quote, urlsplit

import anyio.to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asd_agent import config
from asd_agent.web.security.attempts import Attempts, Key
from asd_agent.web.security.hosts import allowed_hosts, is_allowed
from asd_agent.web.security.sessions import Session, Sessions
from asd_agent.web.security.users import Role, Users

COOKIE = "asd_session"
LARGEST_BODY = 64 << 10
OPEN = ("/login", "/healthz", "/static/")  # paths that need no log-in
SAFE = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware. Puts the `Session` into `scope["session"]`, and answers itself what must not pass."""

    def __init__(self, app: ASGIApp, web: config.Web, users: Users, sessions: Sessions, attempts: Attempts) -> None:
        self._app = app
        self._web = web
        self._users = users
        self._sessions = sessions
        self._attempts = attempts
        self._names = allowed_hosts(web)
        # Whoever may use this machine is the operator; the CSRF token alone keeps other sites' pages out.
        self._own = Session("", Role.OPERATOR, 0.0, 0.0) if web.local else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["root_path"] = self._web.prefix
        if not scope["path"].startswith(f"{self._web.prefix}/"):  # the proxy has taken it off
            scope["path"] = self._web.prefix + scope["path"]
        refusal = await self._admit(scope)
        sender = _with_headers(scope, send)
        await (refusal or self._app)(scope, receive, sender)

    async def _admit(self, scope: Scope) -> Response | None:
        """None = the request may pass."""
        request = Request(scope)
        headers = request.headers
        if not is_allowed(headers.get("host", ""), self._names, self._web):
            return PlainTextResponse("unknown host: name it in web.hosts of the configuration\n", 421)
        if self._web.local and ("x-forwarded-for" in headers or "forwarded" in headers):
            return PlainTextResponse("behind a proxy, set web.hosts or web.prefix: passwords are needed then\n", 403)
        if int(headers.get("content-length") or 0) > LARGEST_BODY or "transfer-encoding" in headers:
            return PlainTextResponse("too much\n", 413)
        path = scope["path"].removeprefix(self._web.prefix)
        session = await self._session(request)
        scope["session"] = session
        if request.method not in SAFE:
            return self._refuse_change(request, path, session)
        if session is None and not path.startswith(OPEN):
            return self._ask(path, scope)
        return None

    def _refuse_change(self, request: Request, path: str, session: Session | None) -> Response | None:
        """A change has to come from our own page, by somebody who may."""
        if not _same_origin(request.headers, request.headers.get("host", "")):
            return JSONResponse({"error": "this request came from another site"}, 403)
        if path == "/login":
            return None
        if session is None:
            return JSONResponse({"error": "log in first"}, 401)
        if not session.proves(request.headers.get("x-csrf-token", "")):
            return JSONResponse({"error": "the page is out of date: load it again"}, 403)
        if session.role is not Role.OPERATOR and path != "/logout":
            return JSONResponse({"error": "only an operator may do this"}, 403)
        return None

    async def _session(self, request: Request) -> Session | None:
        if self._own is not None:
            return self._own
        session = self._sessions.find(request.cookies.get(COOKIE, ""))
        if session is not None:
            user = self._users.all().get(session.user)
            if user is not None and hmac.compare_digest(user.salt, session.salt):
                return session
            return None  # removed, or another password
        return await self._basic(request) if request.method in SAFE else None

    async def _basic(self, request: Request) -> Session | None:
        """Programs (Prometheus, scripts) may read with HTTP basic authentication; nothing can be changed by it."""
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        role = await log_in(self._users, self._attempts, request, name, password)
        return Session(name, Role.VIEWER, 0.0, 0.0) if isinstance(role, Role) else None

    def _ask(self, path: str, scope: Scope) -> Response:
        if path.startswith(("/api/", "/metrics", "/events", "/media/", "/live/")):
            return JSONResponse({"error": "log in first"}, 401, {"www-authenticate": 'Basic realm="asd-agent"'})
        return RedirectResponse(f"{self._web.prefix}/login?next={quote(path)}", 303)


def _with_headers(scope: Scope, send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
            if scope["scheme"] == "https":
                headers["strict-transport-security"] = "max-age=31536000"
        await send(message)

    return sender


def cookie(token: str, scope: Scope, web: config.Web) -> str:
    """The header that sets the session; an empty token ends it."""
    parts = [f"{COOKIE}={token}", f"Path={web.prefix or '/'}", "HttpOnly", "SameSite=Strict"]
    if scope["scheme"] == "https":
        parts.append("Secure")
    if not token:
        parts.append("Max-Age=0")
    return "; ".join(parts)


async def log_in(users: Users, attempts: Attempts, request: Request, name: str, password: str) -> Role | float | None:
    """The role; None when name or password are wrong; the seconds to wait after too many of those."""
    keys: tuple[Key, Key] = ("address", request.client.host if request.client else ""), ("user", name)
    if (wait_s := attempts.wait_s(*keys)) > 0:
        return wait_s
    attempts.failed(*keys)  # before the slow check: those who ask at the same time count too
    role = await anyio.to_thread.run_sync(users.check, name, password)
    if role is not None:
        attempts.succeeded(*keys)
    return role


def _same_origin(headers: Headers, host: str) -> bool:
    """Browsers tell where a request comes from; programs do not, and hold no cookie of ours."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()
