"""Serves the page with uvicorn, over TLS where the site has a certificate."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from asd_agent import config
from asd_agent.errors import AsdError, UsageError
from asd_agent.memory import lean_malloc
from asd_agent.web.app import make_app
from asd_agent.web.security.users import FIRST, Users, users_path
from asd_agent.web.site import Site

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

log = structlog.get_logger()
MOST_CONNECTIONS = 200
DRAIN_S = 2


def serve(settings: config.Config, path: str, *, first: bool = False) -> int:
    """Until SIGTERM. `first`: there is no configuration yet, only set-up. Raises AsdError when it cannot listen."""
    import uvicorn

    web = settings.web or config.Web()
    users = Users(users_path(settings))
    if not web.local:
        _first_password(users)
    for file in (web.cert_file, web.key_file):
        if file is not None and not Path(file).is_file():
            raise UsageError(f"{path}: web: {file}: no such file, or it cannot be read by this user")
    lean_malloc()
    app = make_app(Site(settings, path, users, first=first))
    server = uvicorn.Server(
        uvicorn.Config(
            app, host=web.host, port=web.port, ssl_certfile=web.cert_file, ssl_keyfile=web.key_file,
            http="h11", ws="none", lifespan="on", log_config=None, access_log=False, server_header=False,
            limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=DRAIN_S, backlog=64,
        )
    )  # fmt: skip
    app.state.restart = lambda: _restart(app, server)
    print(f"asd-agent web: {address(web)}", flush=True)
    log.info("page", address=address(web), password=not web.local)
    try:
        server.run()
    except SystemExit as exc:  # uvicorn's way to say that the port is taken
        raise AsdError(f"{web.listen}: cannot listen there: is another page running? Set web.listen") from exc
    if getattr(app.state, "restarts", False):
        os.execv(sys.executable, [sys.executable, "-m", "asd_agent", "web", "-c", path])
    return 0


def address(web: config.Web) -> str:
    """For a person to click on."""
    host = web.hosts[0] if web.hosts else web.host
    host = f"[{host}]" if ":" in host else host
    scheme = "http" if web.cert_file is None else "https"
    return f"{scheme}://{host}:{web.port}{web.prefix}/"


def _restart(app: Starlette, server: uvicorn.Server) -> None:
    """With the configuration that has just been written."""
    app.state.restarts = True
    server.should_exit = True


def _first_password(users: Users) -> None:
    """Told once, here; only its digest is kept."""
    password = users.first()
    if password is not None:
        print(
            f"first log-in to the page: user {FIRST}, password {password}\n"
            "this is said once; `asd-agent web --set-password NAME` sets another",
            file=sys.stderr,
            flush=True,
        )
