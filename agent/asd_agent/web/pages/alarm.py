"""Alarms: the list, and one alarm with all that proves it."""

from __future__ import annotations

import time
from pathlib import Path

import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from asd_agent.errors import StoreError
from asd_agent.evidence.clip import SOUND_SUFFIXES, Clip, read_clip
from asd_agent.types import AlarmEvent, EventKind, State
from asd_agent.web.child import Again
from asd_agent.web.pages.machine import alarms_of
from asd_agent.web.site import Site, answer, site
from asd_agent.whatif import Episode, episodes

LISTED = 200
KEPT = 64  # replays
TYPES = {".flac": "audio/flac", ".wav": "audio/wav", ".png": "image/png", ".json": "application/json"}


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A window of the clip."""

    start_s: float
    end_s: float
    voted: bool
    state: State
    score: float | None


class Sound(msgspec.Struct, frozen=True, kw_only=True):
    """What the player needs of a clip."""

    url: str
    seconds: float
    rate_hz: int
    alarm_s: float
    score_limit: float | None
    spans: list[Span]
    low_hz: float | None = None  # the band that decided
    high_hz: float | None = None


async def listing(request: Request) -> Response:
    here = site(request)
    found = await anyio.to_thread.run_sync(lambda: _all(here))
    return here.page(request, "alarms.html", alarms=found[:LISTED], more=len(found) > LISTED)


async def alarm_page(request: Request) -> Response:
    here = site(request)
    machine = here.machine(request.path_params["machine"])
    episode, events = await anyio.to_thread.run_sync(lambda: _find(here, request))
    clips = [e for e in events if e.evidence and e.kind in (EventKind.RAISED, EventKind.ESCALATED)]
    chosen = next((e for e in clips if e.id == request.query_params.get("clip")), clips[0] if clips else None)
    sound = _sound(here, machine.id, chosen) if chosen is not None else None
    status, _ = await here.daemon.status()
    now = status.machine(machine.id) if status is not None else None
    state = now.alarm if now is not None else None
    return here.page(
        request, "alarm.html", alarm=episode, machine=machine, events=events, clips=clips, chosen=chosen, sound=sound,
        picture=chosen is not None and _beside(here, chosen, ".png") is not None,
        state=state, current=state is not None and state.alarm_id == episode.alarm_id,
        sound_json=msgspec.json.encode(sound).decode() if sound else "",
    )  # fmt: skip


async def media(request: Request) -> Response:
    """GET /media/M/EVENT/sound|picture|sidecar|normal-N: the files of an alarm's evidence."""
    here = site(request)
    event = await anyio.to_thread.run_sync(lambda: _event(here, request))
    what = request.path_params["what"]
    if what.startswith("normal-"):
        again = await _again(here, event)
        number = int(what.removeprefix("normal-")) if what.removeprefix("normal-").isdecimal() else -1
        if not 0 <= number < len(again.normals):
            raise StoreError("there is no such normal sound")
        path = here.file(again.normals[number].path)
    else:
        suffixes = {"sound": SOUND_SUFFIXES, "picture": (".png",), "sidecar": (".json",)}.get(what, ())
        found = next((p for suffix in suffixes if (p := _beside(here, event, suffix)) is not None), None)
        if found is None:
            raise StoreError("this part of the evidence is gone, or is not written yet")
        path = found
    download = f"{event.machine}-{path.name}" if "download" in request.query_params else None
    return FileResponse(path, media_type=TYPES[path.suffix], filename=download, headers={"cache-control": "private"})


async def replay(request: Request) -> Response:
    """GET /api/v1/machines/M/events/EVENT/replay -> `Again`: the scores computed again, the nearest normal sound."""
    here = site(request)
    event = await anyio.to_thread.run_sync(lambda: _event(here, request))
    return answer(await _again(here, event))


async def _again(here: Site, event: AlarmEvent) -> Again:
    if event.id not in here.replays:
        here.replays[event.id] = await here.children.run(Again, "replay", event.id)
        while len(here.replays) > KEPT:
            here.replays.popitem(last=False)
    return here.replays[event.id]


def _all(here: Site) -> list[tuple[str, Episode]]:
    """Machine and alarm, the newest first."""
    found = [
        (machine.id, episode)
        for machine in here.settings.machines
        for episode in alarms_of(here, machine, 0.0, time.time())[0]
    ]
    return sorted(found, key=lambda pair: -pair[1].raised_utc_s)


def _find(here: Site, request: Request) -> tuple[Episode, list[AlarmEvent]]:
    """Raises StoreError."""
    machine, alarm_id = here.machine(request.path_params["machine"]), request.path_params["alarm"]
    _, events = alarms_of(here, machine, 0.0, time.time())
    mine = [e for e in events if e.alarm_id == alarm_id]
    found = episodes(mine)
    if not found:
        raise StoreError("there is no such alarm")
    return found[0], mine


def _event(here: Site, request: Request) -> AlarmEvent:
    machine, event_id = here.machine(request.path_params["machine"]), request.path_params["event"]
    _, events = alarms_of(here, machine, 0.0, time.time())
    found = next((e for e in events if e.id == event_id), None)
    if found is None or not found.evidence:
        raise StoreError("there is no such event, or it has no clip")
    return found


def _beside(here: Site, event: AlarmEvent, suffix: str) -> Path | None:
    try:
        return here.file(str(Path(event.evidence).with_suffix(suffix)))
    except StoreError:
        return None


def _sound(here: Site, machine_id: str, event: AlarmEvent) -> Sound | None:
    sidecar = _beside(here, event, ".json")
    if sidecar is None or all(_beside(here, event, suffix) is None for suffix in SOUND_SUFFIXES):
        return None
    clip: Clip = read_clip(sidecar)
    band = clip.typical.band if clip.typical is not None else None
    return Sound(
        url=f"{here.prefix}/media/{machine_id}/{event.id}",
        seconds=clip.before_s + clip.after_s,
        rate_hz=clip.rate_hz,
        alarm_s=clip.alarm_s,
        score_limit=clip.made_with.threshold if clip.made_with is not None else None,
        spans=[
            Span(
                start_s=row.frame / clip.rate_hz,
                end_s=row.frame / clip.rate_hz + row.result.duration_s,
                voted=row.result.index in event.deciding_windows,
                state=row.result.state,
                score=row.result.score,
            )
            for row in clip.windows
        ],
        low_hz=band.low_hz if band else None,
        high_hz=band.high_hz if band else None,
    )


ROUTES = [
    Route("/alarms", listing),
    Route("/machines/{machine}/alarms/{alarm}", alarm_page),
    Route("/media/{machine}/{event}/{what}", media),
    Route("/api/v1/machines/{machine}/events/{event}/replay", replay),
]
