"""Calibration by clicks: start, watch, read the verdict, listen to outliers, compare, promote, roll back."""

from __future__ import annotations

import time

import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from asd_agent import config
from asd_agent.baseline import BaselineStore, Manifest, Pointers
from asd_agent.errors import AsdError, BaselineError, StoreError
from asd_agent.service import client
from asd_agent.service.control import DaemonAbsent
from asd_agent.types import rfc3339
from asd_agent.web.child import Compared
from asd_agent.web.pages.machine import DAY_S, alarms_of
from asd_agent.web.site import Site, answer, site
from asd_agent.whatif import Episode

COMPARED_S = 30 * 86_400.0
VERSIONS = 12  # listed


class Version(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    role: str  # active, candidate, previous, or empty
    created: str | None
    windows: int
    operating_states: list[str]
    good: bool
    verdict: str


async def calibrate_page(request: Request) -> Response:
    here = site(request)
    machine = here.machine(request.path_params["machine"])
    store = BaselineStore(here.settings.state_dir, machine.id)
    pointers, versions, newest = await anyio.to_thread.run_sync(_versions, store)
    status, why = await here.daemon.status()
    now = status.machine(machine.id) if status is not None else None
    suspicious = (
        await anyio.to_thread.run_sync(_present, here, machine) if now and now.score and now.score.unknown_state else []
    )
    return here.page(
        request, "calibrate.html", machine=machine, pointers=pointers, versions=versions, newest=newest, now=now,
        why=why, suspicious=suspicious,
    )  # fmt: skip


async def progress(request: Request) -> Response:
    """GET /api/v1/machines/M/calibration: how far the calibration is, and its report at the end."""
    here = site(request)
    machine = here.machine(request.path_params["machine"])
    try:
        return answer(await anyio.to_thread.run_sync(client.calibration, here.settings, machine.id))
    except DaemonAbsent:
        raise
    except AsdError:
        return answer(None)  # none has been started


async def comparison(request: Request) -> Response:
    """GET /api/v1/machines/M/comparison -> `Compared`: the candidate in shadow against the active baseline."""
    here = site(request)
    machine = here.machine(request.path_params["machine"])
    return answer(await here.children.run(Compared, "compare", machine.id, str(COMPARED_S)))


async def outlier(request: Request) -> Response:
    """GET /media/M/outliers/VERSION/NUMBER: the sound of an outlier, numbered from 1."""
    here, number = site(request), request.path_params["number"]
    machine = here.machine(request.path_params["machine"])
    store = BaselineStore(here.settings.state_dir, machine.id)
    report = (await anyio.to_thread.run_sync(store.manifest, request.path_params["version"])).report
    if not 1 <= number <= len(report.outliers) or not report.outliers[number - 1].clip:
        raise StoreError("the sound of this window was not kept")
    return FileResponse(here.file(report.outliers[number - 1].clip), media_type="audio/flac")


def _versions(store: BaselineStore) -> tuple[Pointers, list[Version], Manifest | None]:
    """The newest first; the newest whole."""
    pointers, found, newest = store.pointers(), [], None
    roles = {pointers.previous: "previous", pointers.candidate: "candidate", pointers.active: "active"}
    for name in store.versions()[: -VERSIONS - 1 : -1]:
        try:
            manifest = store.manifest(name)
        except BaselineError as exc:
            found.append(
                Version(
                    version=name, role=roles.get(name, ""), created=None, windows=0, operating_states=[], good=False,
                    verdict=str(exc),
                )
            )  # fmt: skip
            continue
        newest = newest or manifest
        found.append(
            Version(
                version=name,
                role=roles.get(name, ""),
                created=rfc3339(manifest.created_utc_s),
                windows=manifest.report.windows,
                operating_states=[state.name for state in manifest.states],
                good=manifest.report.good,
                verdict=manifest.report.verdict,
            )
        )
    return pointers, found, newest


def _present(here: Site, machine: config.Machine) -> list[Episode]:
    """Alarms of the last day: what is confirmed as a state of operation then might be the fault."""
    now = time.time()
    return alarms_of(here, machine, now - DAY_S, now)[0]


ROUTES = [
    Route("/machines/{machine}/calibrate", calibrate_page),
    Route("/api/v1/machines/{machine}/calibration", progress),
    Route("/api/v1/machines/{machine}/comparison", comparison),
    Route("/media/{machine}/outliers/{version}/{number:int}", outlier),
]
