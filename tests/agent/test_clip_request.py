"""The clip of an alarm in chunks: complete, only what the store names, one line for what is not there."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from asd_agent.errors import UsageError
from asd_agent.service.clip_request import CHUNK, ClipChunk, ClipRequest, clip_chunk
from asd_agent.store import Store
from store_cases import alarm_event, alarm_state

SOUND = "evidence/m1/20260327T120000Z_a1.flac"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as opened:
        (tmp_path / SOUND).parent.mkdir(parents=True)
        opened.commit_events([alarm_event("e1", alarm_id="a1", evidence=SOUND)], alarm_state(), [])
        yield opened


def parts(store: Store, folder: Path, **more: str) -> list[ClipChunk]:
    first = clip_chunk(ClipRequest(machine="m1", **more), store, folder)  # type: ignore[arg-type]
    rest = [
        clip_chunk(ClipRequest(machine="m1", alarm_id=first.alarm_id, chunk=i, **more), store, folder)  # type: ignore[arg-type]
        for i in range(1, first.chunks)
    ]
    return [first, *rest]


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1])
def test_the_chunks_are_the_file(store: Store, tmp_path: Path, size: int) -> None:
    content = bytes(i % 251 for i in range(size))
    (tmp_path / SOUND).write_bytes(content)
    found = parts(store, tmp_path)
    assert b"".join(base64.b64decode(part.data) for part in found) == content
    assert {part.sha256 for part in found} == {hashlib.sha256(content).hexdigest()}
    assert {(part.media_type, part.size_bytes, part.alarm_id) for part in found} == {("audio/flac", size, "a1")}
    assert max(len(part.data) for part in found) < 200_000


def test_picture_and_description_lie_beside_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / SOUND).with_suffix(".png").write_bytes(b"\x89PNG")
    assert parts(store, tmp_path, kind="picture")[0].media_type == "image/png"
    with pytest.raises(UsageError, match="the description of that alarm is not there"):
        parts(store, tmp_path, kind="description")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ClipRequest(machine="m1", alarm_id="../../etc/passwd"), "there is no alarm '../../etc/passwd' with a clip"),
        (ClipRequest(machine="m2"), "m2: there is no alarm with a clip"),
        (ClipRequest(machine="m1", chunk=1), "there are the chunks 0 to 0"),
    ],
)
def test_what_is_not_there_is_one_line(store: Store, tmp_path: Path, request_: ClipRequest, words: str) -> None:
    (tmp_path / SOUND).write_bytes(b"x")
    with pytest.raises(UsageError, match=words):
        clip_chunk(request_, store, tmp_path)
