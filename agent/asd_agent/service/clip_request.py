"""The verb `clip`: sound, picture or description of an alarm, in chunks that a broker takes."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from asd_agent.errors import StoreError, UsageError
from asd_agent.store import Store

CHUNK = 96 << 10  # bytes of the file; as base64 it fits into the 256 KiB that the smallest brokers take
EVENTS = 10_000
MEDIA = {".flac": "audio/flac", ".wav": "audio/wav", ".png": "image/png", ".json": "application/json"}


class ClipRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a clip; ask for chunk 0, then for the others."""

    machine: str
    alarm_id: str = ""  # empty = the last alarm that has a clip
    kind: Literal["sound", "picture", "description"] = "sound"
    chunk: Annotated[int, Meta(ge=0)] = 0


class ClipChunk(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: put together in order, the chunks are the file."""

    alarm_id: str
    name: str
    media_type: str
    size_bytes: int
    sha256: str  # of the whole file
    chunk: int
    chunks: int
    data: str  # base64


def clip_chunk(request: ClipRequest, store: Store, state_dir: Path) -> ClipChunk:
    """Raises UsageError where there is no such clip or chunk, StoreError where it cannot be read."""
    alarm_id, sound = _find(request, store)
    suffix = {"sound": sound.suffix, "picture": ".png", "description": ".json"}[request.kind]
    path = state_dir / sound.with_suffix(suffix)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(
            f"{request.machine}: the {request.kind} of that alarm is not there (yet): it is complete "
            "agent.evidence.after_s after the alarm, and deleted after max_age_days"
        ) from None
    except OSError as exc:
        raise StoreError(f"{path}: cannot be read ({exc.strerror})") from exc
    chunks = max(1, -(-len(content) // CHUNK))
    if request.chunk >= chunks:
        raise UsageError(f"clip: there are the chunks 0 to {chunks - 1}")
    part = content[request.chunk * CHUNK : (request.chunk + 1) * CHUNK]
    return ClipChunk(
        alarm_id=alarm_id,
        name=path.name,
        media_type=MEDIA[suffix],
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        chunk=request.chunk,
        chunks=chunks,
        data=base64.b64encode(part).decode(),
    )


def _find(request: ClipRequest, store: Store) -> tuple[str, Path]:
    """The alarm and the path of its sound: from the store, never from the request."""
    events = store.events(machine=request.machine, limit=EVENTS)
    found = [e for e in events if e.evidence and request.alarm_id in ("", e.alarm_id)]
    if not found:
        which = f"alarm {request.alarm_id[:64]!r}" if request.alarm_id else "alarm"
        raise UsageError(f"{request.machine}: there is no {which} with a clip")
    last = max(found, key=lambda event: event.utc_s)
    return last.alarm_id, Path(last.evidence)
