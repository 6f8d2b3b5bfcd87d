"""python -m asd_agent.web.child WHAT CONFIG ARGUMENTS: one long computation, its answer as JSON on standard output.

replay EVENT                 an alarm's scores again from its clip, and the nearest normal sound
whatif MACHINE CHANGES       the alarms of stored scores under other settings; CHANGES: `Question` as JSON
compare MACHINE SECONDS      the candidate in shadow against the active baseline
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from asd_agent import config
from asd_agent.errors import AsdError, StoreError, UsageError
from asd_agent.types import rfc3339
from asd_agent.whatif.episodes import AlarmSpan

if TYPE_CHECKING:
    from asd_agent.baseline import BaselineStore
    from asd_agent.evidence.nearest import Normal
    from asd_agent.evidence.replay import Replay

NORMALS = 3
NICE = 10


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    error: str


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """A normal window that can be listened to."""

    path: str  # below the state directory
    time: str  # of its start, RFC 3339
    duration_s: float
    distance: float


class Again(msgspec.Struct, frozen=True, kw_only=True, tag="replay"):
    agrees: bool
    verdict: str
    normals: list[Heard]
    silent: str = ""  # why there is no normal sound


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings to try; None = as configured."""

    since_s: float = 30 * 86_400.0  # before now
    false_alarms_per_month: float | None = None
    window_votes: str | None = None


class Tried(msgspec.Struct, frozen=True, kw_only=True, tag="whatif"):
    since: str  # start of the first window, RFC 3339
    until: str  # and of the last one
    windows: int
    judged: int
    score_limit: float | None  # with these settings
    configured_limit: float | None  # with those of the configuration
    then: list[AlarmSpan]
    now: list[AlarmSpan]
    left_out: int  # windows whose baseline is gone


class Compared(msgspec.Struct, frozen=True, kw_only=True, tag="compare"):
    version: str
    line: str
    advice: str


def main(arguments: list[str]) -> int:
    what, path, *more = arguments
    if what == "level":
        return _level(*more)
    with contextlib.suppress(OSError):  # the unit may forbid it, and has set its own
        os.nice(NICE)
    try:
        answer = _WHAT[what](config.load(path), *more)
    except AsdError as exc:
        answer = Failed(str(exc))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    return 0


class Loud(msgspec.Struct, frozen=True):
    rms_dbfs: float
    peak_dbfs: float
    advice: str


def _level(source: str, seconds: str) -> int:
    """Lines, about ten a second, until the time is over or nobody reads them."""
    import yaml

    from asd_agent.setup.answers import source_words
    from asd_agent.setup.meter import levels

    try:
        described = msgspec.convert(yaml.safe_load(source_words(source)), config.Source)
        for level in levels(described, float(seconds)):
            _say(Loud(round(level.rms_dbfs, 1), round(level.peak_dbfs, 1), level.advice))
    except (AsdError, msgspec.ValidationError) as exc:
        _say({"error": str(exc)})
    except BrokenPipeError:
        pass
    return 0


def _say(line: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


def _replay(settings: config.Config, event: str) -> msgspec.Struct:
    from asd_agent.evidence.replay import find, replay

    found = find(settings.state_dir, event)
    if found is None:
        raise StoreError("the clip of this alarm is gone, or is not written yet")
    sidecar, clip = found
    done = replay(sidecar, clip, settings.state_dir, settings.machine(clip.event.machine))
    if not done.windows:
        return Again(agrees=False, verdict="No window lies whole in the clip: nothing to compute again.", normals=[])
    agrees, verdict = _verdict(done)
    heard = [h for n in done.normals if (h := _heard(settings.state_dir, clip.event.machine, n)) is not None]
    silent = "" if heard else "The sound of the calibration is gone, or lies outside of the agent's state directory."
    return Again(agrees=agrees, verdict=verdict, normals=heard[:NORMALS], silent=silent)


def _verdict(done: Replay) -> tuple[bool, str]:
    count, differ = len(done.windows), [w for w in done.windows if not w.same]
    if not differ:
        return True, f"Computed again from the clip: all {count} windows give the same numbers, to the last bit."
    changes = [abs((w.result.score or 0.0) - (w.stored.result.score or 0.0)) for w in differ]
    software = ", ".join(f"{name} {version}" for name, version in done.software.items())
    words = (
        f"Computed again from the clip: {len(differ)} of {count} windows differ, by up to {max(changes):.2g} in score"
    )
    return False, words + (f"; not as it was then: {software}." if software else ".")


def _heard(state_dir: Path, machine: str, normal: Normal) -> Heard | None:
    """None for sound outside of the state directory: the page reads nothing there."""
    from asd_agent.evidence.nearest import kept_name

    if normal.origin:
        return None
    folder = state_dir / "machines" / machine / "normals"
    path = next(folder.glob(f"[!.]*/{kept_name(normal.utc_s)}"), None)
    if path is None:
        return None
    return Heard(
        path=str(path.relative_to(state_dir)), time=rfc3339(normal.utc_s), duration_s=normal.duration_s,
        distance=normal.distance,
    )  # fmt: skip


def _what_if(settings: config.Config, machine_id: str, question: str) -> msgspec.Struct:
    from asd_agent.baseline import BaselineStore
    from asd_agent.store import Reader
    from asd_agent.whatif import span_of, what_if

    machine = settings.machine(machine_id)
    assert machine is not None  # the page has looked
    asked = msgspec.json.decode(question, type=Question)
    changes = {k: v for k in ("false_alarms_per_month", "window_votes") if (v := getattr(asked, k)) is not None}
    try:
        msgspec.convert(changes, config.Alarm, strict=True)
    except msgspec.ValidationError as exc:
        raise UsageError(str(exc).partition(" - at ")[0]) from exc
    target = msgspec.structs.replace(machine, alarm=msgspec.structs.replace(machine.alarm, **changes))
    baselines = BaselineStore(settings.state_dir, machine_id)
    answer = what_if(Reader(settings.state_dir), baselines, target, time.time() - asked.since_s)
    return Tried(
        since=rfc3339(answer.first_utc_s),
        until=rfc3339(answer.last_utc_s),
        windows=answer.windows,
        judged=answer.judged,
        score_limit=answer.score,
        configured_limit=_limit(baselines, machine),
        then=[span_of(e) for e in answer.then],
        now=[span_of(e) for e in answer.now],
        left_out=sum(answer.lost.values()),
    )


def _limit(baselines: BaselineStore, machine: config.Machine) -> float | None:
    active = baselines.active()
    return None if active is None else -math.log10(active.manifest.thresholds(machine).alert_p)


def _compare(settings: config.Config, machine_id: str, since_s: str) -> msgspec.Struct:
    from asd_agent.baseline import BaselineStore
    from asd_agent.store import Reader
    from asd_agent.whatif.compare import compare

    version = BaselineStore(settings.state_dir, machine_id).pointers().candidate
    if version is None:
        raise StoreError("there is no candidate")
    done = compare(Reader(settings.state_dir), machine_id, version, time.time() - float(since_s))
    return Compared(version=version, line=done.line, advice=done.advice)


_WHAT: dict[str, Callable[..., msgspec.Struct]] = {"replay": _replay, "whatif": _what_if, "compare": _compare}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
