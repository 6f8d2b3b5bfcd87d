"""What if: the stored scores under another budget and other votes; the alarms then and now."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asd_agent.errors import UsageError
from asd_agent.web.child import Question, Tried
from asd_agent.web.site import answer, site

LONGEST_S = 400 * 86_400.0


async def whatif_page(request: Request) -> Response:
    here = site(request)
    machine = here.machine(request.path_params["machine"])
    return here.page(request, "whatif.html", machine=machine, votes=machine.votes)


async def whatif(request: Request) -> Response:
    """GET /api/v1/machines/M/whatif?since_s=&budget=&votes= -> `Tried`."""
    here, asked = site(request), request.query_params
    machine = here.machine(request.path_params["machine"])
    try:
        question = Question(
            since_s=min(float(asked.get("since_s", 30 * 86_400.0)), LONGEST_S),
            false_alarms_per_month=float(asked["budget"]) if "budget" in asked else None,
            window_votes=asked.get("votes"),
        )
    except ValueError as exc:
        raise UsageError("since_s and budget are numbers") from exc
    return answer(await here.children.run(Tried, "whatif", machine.id, msgspec.json.encode(question).decode()))


ROUTES = [
    Route("/machines/{machine}/whatif", whatif_page),
    Route("/api/v1/machines/{machine}/whatif", whatif),
]
