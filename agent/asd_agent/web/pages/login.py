"""Log in and out."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from asd_agent.web.security.guard import COOKIE, cookie, log_in
from asd_agent.web.security.users import Role
from asd_agent.web.site import site

ONE_FIELD = 300  # characters


async def show(request: Request) -> Response:
    return site(request).page(request, "login.html", next=_next(request.query_params.get("next", "")), error="")


async def enter(request: Request) -> Response:
    here = site(request)
    form = parse_qs((await request.body()).decode(errors="replace"))
    name, password, after = (form.get(key, [""])[0][:ONE_FIELD] for key in ("name", "password", "next"))
    found = await log_in(here.users, here.attempts, request, name, password)
    if isinstance(found, Role):
        token, _ = here.sessions.begin(name, found, here.users.all()[name].salt)
        headers = {"set-cookie": cookie(token, request.scope, here.web)}
        return RedirectResponse(here.prefix + _next(after), 303, headers)
    if found is None:
        return here.page(request, "login.html", 403, next=_next(after), error="Name or password is wrong.")
    words = f"Too many attempts. Try again in {max(found / 60, 1):.0f} min."
    return here.page(request, "login.html", 429, next=_next(after), error=words)


async def leave(request: Request) -> Response:
    here = site(request)
    here.sessions.end(request.cookies.get(COOKIE, ""))
    return Response(status_code=204, headers={"set-cookie": cookie("", request.scope, here.web)})


def _next(path: str) -> str:
    """A path of ours, never another site."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


ROUTES = [
    Route("/login", show, methods=["GET"]),
    Route("/login", enter, methods=["POST"]),
    Route("/logout", leave, methods=["POST"]),
]
