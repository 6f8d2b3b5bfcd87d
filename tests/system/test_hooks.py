"""Hooks of a whole daemon: a command and a webhook that fails twice."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from mosquitto import wait_for

pytestmark = pytest.mark.system
APPEND = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"


class Web(HTTPServer):
    """Answers 500 twice, then 200."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        web = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                web.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(500 if len(web.bodies) <= 2 else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()


def test_a_raised_alarm_reaches_a_command_and_a_webhook_that_fails_twice(site: Any) -> None:
    told, web = site.folder / "told", Web()
    command = [sys.executable, "-c", APPEND, str(told)]
    site.configure(
        notify=[{"command": command, "on": ["raised"]},
                {"webhook": f"http://127.0.0.1:{web.server_port}/hook", "on": ["raised"]}]
    )  # fmt: skip
    site.start()
    site.until(state="normal")
    site.play("faulty")
    site.until(level="danger")
    wait_for(lambda: told.exists() and told.read_text().endswith("\n"), "the command is told")
    wait_for(lambda: len(web.bodies) == 3, "the webhook is told again", 60.0)
    raised = next(event for event in site.events() if event.kind == "raised")
    (line,) = told.read_text().splitlines()
    for body in (json.loads(line), *web.bodies):
        assert (body["schema"], body["id"], body["event_type"]) == ("asd/event/1", raised.id, "raised")
    site.stop()
    web.shutdown()
