"""What an operator does: each is a verb of the daemon, which checks its arguments and carries it out."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asd_agent.errors import UsageError
from asd_agent.web.site import answer, name_of, site

OF_PEOPLE = ("ack", "shelve", "unshelve", "out_of_service", "mark")  # these say by whom
OF_BASELINES = (
    "calibrate", "calibrate_without", "cancel_calibration", "promote", "rollback", "extend", "rename_state",
)  # fmt: skip
SLOW_S = 300.0
LONGEST_NAME = 80


class Done(msgspec.Struct, frozen=True):
    said: object  # the daemon's answer


async def act(request: Request) -> Response:
    """POST /api/v1/machines/M/VERB with the verb's arguments as JSON -> `Done`."""
    here, verb = site(request), request.path_params["verb"]
    machine = here.machine(request.path_params["machine"])
    if verb not in (*OF_PEOPLE, *OF_BASELINES):
        raise UsageError(f"unknown verb {verb!r}")
    try:
        arguments = msgspec.json.decode(await request.body() or b"{}", type=dict[str, object])
    except msgspec.DecodeError as exc:
        raise UsageError(f"not a JSON object: {exc}") from exc
    arguments["machine"] = machine.id
    if verb in OF_PEOPLE:
        arguments["by"] = name_of(request) or str(arguments.get("by", ""))[:LONGEST_NAME]
    return answer(Done(await here.daemon.ask(verb, timeout_s=SLOW_S, **arguments)))


ROUTES = [Route("/api/v1/machines/{machine}/{verb}", act, methods=["POST"])]
