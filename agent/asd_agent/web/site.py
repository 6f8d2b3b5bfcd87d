"""What all handlers share: configuration, the way to the daemon, the store, the templates, who is logged in."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from asd_agent import __version__, config
from asd_agent.errors import StoreError, UsageError
from asd_agent.store import Reader
from asd_agent.web import words
from asd_agent.web.child import Again
from asd_agent.web.children import Children
from asd_agent.web.daemon import Daemon
from asd_agent.web.security.attempts import Attempts
from asd_agent.web.security.sessions import Session, Sessions
from asd_agent.web.security.users import Role, Users
from asd_agent.web.series import Limits

HERE = Path(__file__).parent
STATIC = HERE / "static"


class Site:
    """One per process."""

    def __init__(self, settings: config.Config, path: str, users: Users, *, first: bool = False) -> None:
        """`path`: of the configuration file; `first`: there is none yet, `settings` are made up."""
        self.first = first
        self.settings, self.path, self.users = settings, path, users
        self.web = settings.web or config.Web()
        self.sessions, self.attempts = Sessions(), Attempts()
        self.daemon = Daemon(settings)
        self.reader = Reader(settings.state_dir)
        self.limits = Limits(settings.state_dir)
        self.children = Children(path)
        self.replays: OrderedDict[str, Again] = OrderedDict()  # by event
        self.release = _fingerprint()
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(words=words, version=__version__, static=f"{self.prefix}/static/{self.release}")

    @property
    def prefix(self) -> str:
        return self.web.prefix

    def machine(self, machine_id: str) -> config.Machine:
        """Raises UsageError."""
        found = self.settings.machine(machine_id)
        if found is None:
            raise UsageError(f"there is no machine {machine_id!r}")
        return found

    def file(self, relative: str) -> Path:
        """A file of the state directory. Raises StoreError for any other, and for one that is gone."""
        root = self.settings.state_dir.resolve()
        path = (root / relative).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise StoreError("this file is gone, or is none of the agent's")
        return path

    def page(self, request: Request, template: str, status_code: int = 200, **context: Any) -> Response:
        session: Session | None = request.scope.get("session")
        text = self._templates.get_template(template).render(
            agent=self.settings.agent.id,
            prefix=self.prefix,
            first_start=self.first,
            user=session.user if session else "",
            operator=bool(session and session.role is Role.OPERATOR),
            csrf=session.csrf() if session else "",
            here=request.scope["path"].removeprefix(self.prefix),
            **context,
        )
        return HTMLResponse(text, status_code)


def site(request: Request) -> Site:
    found = request.app.state.site
    assert isinstance(found, Site)
    return found


def name_of(request: Request) -> str:
    """Whose name goes into the log of alarms."""
    session: Session | None = request.scope.get("session")
    return session.user if session else ""


def answer(data: object, status_code: int = 200) -> Response:
    """Structs as JSON."""
    return Response(msgspec.json.encode(data), status_code, media_type="application/json")


def _fingerprint() -> str:
    """In the path of static files, so that browsers may keep them for ever."""
    digest = hashlib.sha256(__version__.encode())
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
