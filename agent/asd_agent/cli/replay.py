"""asd-agent replay: the score of an alarm computed again from its clip, beside what was stored then."""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.cli.options import add_config, add_json
from asd_agent.cli.rows import header, row
from asd_agent.cli.words import Row, local, print_json, progress, say, show, zone
from asd_agent.errors import AsdError, StoreError
from asd_agent.evidence.clip import Clip, read_clip, sidecars
from asd_agent.evidence.nearest import audible
from asd_agent.evidence.replay import Replay, Replayed, find, replay, sound_path
from asd_agent.store import Store

if TYPE_CHECKING:
    from asd_agent.evidence.nearest import Normal
    from asd_agent.types import Samples

RECENT = 5
WRITTEN_S = 60.0  # after the last sound of a clip it lies on the disk
NORMALS = 3
GONE = "the sound of the calibration is gone, or has changed"
Sounds = Sequence["tuple[Normal, Samples, int]"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("event", metavar="EVENT", help="id of an alarm event (its beginning is enough), or its clip")
    add_json(parser, "print the stored and the computed scores as JSON")
    parser.add_argument("--csv", action="store_true", help="print the stored and the computed scores as CSV")
    parser.add_argument(
        "--picture", metavar="out.png", help="draw a spectrogram with the deciding band and time, and normal sound"
    )
    parser.add_argument(
        "--listen", metavar="DIR", help="write the alarm's window and the nearest normal ones to this folder"
    )


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    sidecar, clip = _find(settings, args.event)
    machine = settings.machine(clip.event.machine)
    with progress("scoring again") as update:
        done = replay(sidecar, clip, settings.state_dir, machine, update)
    folder = BaselineStore(settings.state_dir, clip.event.machine).folder
    found = audible(done.normals, folder, machine.source.channel if machine is not None else 0, NORMALS)
    sound = sound_path(sidecar)
    if not done.windows:
        raise StoreError(f"{sidecar}: no window lies whole in the clip, with what it was made from: nothing to replay")
    if args.json:
        print_json(_data(settings, done, sound))
    elif args.csv:
        _csv(done, sound)
    else:
        _show(done, sound)
        _show_normals(done, found)
    if args.picture:
        _draw(Path(args.picture), done, found)
    if args.listen:
        _listen(Path(args.listen), done, found)
    differs = [w for w in done.windows if _differences(w, sound, done)]
    verdict = _verdict(done, differs, sound)
    print(verdict, file=sys.stderr if args.csv or args.json else sys.stdout)
    return 1 if differs else 0


def _find(settings: config.Config, wanted: str) -> tuple[Path, Clip]:
    """Raises StoreError that says why there is no clip, or which there are."""
    if (found := find(settings.state_dir, wanted)) is not None:
        return found
    try:
        with Store.reader(settings.state_dir) as store:
            event = next((e for e in store.events(limit=100_000) if wanted and e.id.startswith(wanted)), None)
    except StoreError:
        event = None
    if event is not None and not event.evidence:
        raise StoreError(f"event {event.id[:12]} ({event.kind}) has no clip of its own: replay its alarm")
    if event is not None and (shared := (settings.state_dir / event.evidence).with_suffix(".json")).is_file():
        clip = read_clip(shared)  # it goes on from an earlier event of the same alarm
        later_s = event.utc_s - clip.event.utc_s
        return shared, msgspec.structs.replace(clip, event=event, before_s=clip.before_s + later_s)
    limits = settings.agent.evidence
    if event is not None and time.time() - event.utc_s < limits.after_s + WRITTEN_S:
        raise StoreError(f"the clip of event {event.id[:12]} is not written yet: try again in a minute")
    if event is not None:
        raise StoreError(
            f"the clip of event {event.id[:12]} is gone: clips are deleted after {limits.max_age_days:g} days, or when "
            f"all of them exceed {limits.max_total_mb:g} MB (agent.evidence); it was {event.evidence}"
        )
    raise StoreError(f"no clip of an event {wanted!r}; {_recent(settings.state_dir)}")


def _recent(state_dir: Path) -> str:
    found = []
    for sidecar in sidecars(state_dir / "evidence"):
        try:
            found.append(read_clip(sidecar).event)
        except StoreError:
            continue
    newest = sorted(found, key=lambda event: event.utc_s)[-RECENT:]
    if not newest:
        return f"there is none yet under {state_dir / 'evidence'}"
    return "the newest are " + ", ".join(f"{e.id[:12]} ({e.machine} {e.kind} {local(e.utc_s)})" for e in newest[::-1])


def _detectors(done: Replay) -> list[str]:
    return list(dict.fromkeys(d.name for w in done.windows for d in w.stored.result.detectors))


def _differences(window: Replayed, sound: Path, done: Replay) -> list[tuple[str, str, str]]:
    """Columns of the CSV that differ: name, then, now."""
    names = _detectors(done)
    then, now = row(sound, window.stored.result, names), row(sound, window.result, names)
    return [(name, a, b) for name, a, b in zip(header(names), then, now, strict=True) if a != b]


def _verdict(done: Replay, differs: list[Replayed], sound: Path) -> str:
    count = len(done.windows)
    left = f" ({done.left_out} more reach beyond the clip)" if done.left_out else ""
    if not differs:
        exact = "every number to the last bit" if all(w.same for w in done.windows) else "every digit of the CSV"
        return f"agrees: {count} windows, {exact}{left}"
    words = ", ".join(
        f"{name} {a or 'empty'} then, {b or 'empty'} now" for name, a, b in _differences(differs[0], sound, done)[:4]
    )
    hint = ", ".join(f"{k} {v}" for k, v in done.software.items())
    hint = f"; not as it was then: {hint}" if hint else ""
    at = differs[0].stored.frame / done.clip.rate_hz
    return f"differs in {len(differs)} of {count} windows{left}; the first, at {at:.1f} s: {words}{hint}"


def _csv(done: Replay, sound: Path) -> None:
    names = _detectors(done)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["when", *header(names)])
    for window in done.windows:
        writer.writerow(["then", *row(sound, window.stored.result, names)])
        writer.writerow(["now", *row(sound, window.result, names)])


def _data(settings: config.Config, done: Replay, sound: Path) -> dict[str, object]:
    from asd_agent.publish.messages import Messages

    names = _detectors(done)
    head = header(names)
    return {
        "event": Messages.of_agent(settings).event(done.clip.event),
        "sound": str(sound),
        "left_out": done.left_out,
        "part": msgspec.to_builtins(done.part),
        "software": done.software,
        "by_window": [
            {
                "then": dict(zip(head, row(sound, window.stored.result, names), strict=True)),
                "now": dict(zip(head, row(sound, window.result, names), strict=True)),
                "same": window.same,
            }
            for window in done.windows
        ],
    }


def _show(done: Replay, sound: Path) -> None:
    clip, event = done.clip, done.clip.event
    then = clip.made_with
    assert then is not None
    seconds = len(done.samples) / clip.rate_hz
    bundles = ", ".join(f"{name} {sha256[:12]} ({then.variants[name]})" for name, sha256 in then.bundles.items())
    say(
        f"{event.machine}: {event.kind}, {event.level}, {local(event.utc_s)} {zone()}: {event.reason}",
        f"clip {sound}: {seconds:.1f} s at {clip.rate_hz} Hz, the alarm at {clip.alarm_s:.1f} s",
        f"baseline {then.baseline} {then.baseline_sha256[:12]}, bundle {bundles}, {_limit(then.threshold)}",
    )
    if done.part is not None and done.part.words:
        say(f"the clip's windows added up: {done.part.words}")
    names = _detectors(done)
    show(
        ("at", "voted", "state", "score then", "now", *names),
        [_row(done, w, sound, names) for w in done.windows],
    )


def _row(done: Replay, window: Replayed, sound: Path, names: list[str]) -> Row:
    """Then and now; what differs is red."""
    head = header(names)
    was, now = row(sound, window.stored.result, names), row(sound, window.result, names)
    columns = [head.index("score"), *(head.index(f"distance_{name}") for name in names)]
    differs = [i for i, column in enumerate(columns) if was[column] != now[column]]
    score, *distances = columns
    cells = (
        f"{window.stored.frame / done.clip.rate_hz:.1f} s",
        "*" if window.result.index in done.clip.event.deciding_windows else "",
        window.stored.result.state.value.replace("_", " "),
        was[score],
        now[score],
        *(was[i] if now[i] == was[i] else f"{was[i]} -> {now[i]}" for i in distances),
    )
    return Row(cells, styles={4 + i: "bold red" for i in differs})


def _show_normals(done: Replay, found: Sounds) -> None:
    for number, (normal, _, _) in enumerate(found, 1):
        print(f"nearest normal sound {number}: {_where(normal)}, distance {normal.distance:.4g}")
    if done.normals and not found:
        nearest = done.normals[0]
        print(f"nearest normal sound: {_where(nearest)}, distance {nearest.distance:.4g}; {GONE}")


def _limit(threshold: float | None) -> str:
    return "no limit" if threshold is None else f"a window counts from a score of {threshold:.2f}"


def _where(normal: Normal) -> str:
    if not normal.origin:
        return f"live, {local(normal.utc_s)} {zone()}"
    return f"{normal.origin} {normal.start_s:.1f}-{normal.start_s + normal.duration_s:.1f} s"


def _draw(path: Path, done: Replay, found: Sounds) -> None:
    from asd_agent.evidence.picture import alarm

    _write(path, alarm.draw(done.samples, done.clip, found[0][1:] if found else None))
    print(f"picture: {path}", file=sys.stderr)


def _listen(folder: Path, done: Replay, found: Sounds) -> None:
    """The alarm's window and the nearest normal ones as files of the same length, side by side."""
    from asd_agent.evidence.clip import bits_of, encode_sound

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise AsdError(f"{folder}: cannot be made ({exc.strerror})") from exc
    clip = done.clip
    worst = clip.typical or done.windows[-1].stored
    end = worst.frame + round(worst.result.duration_s * clip.rate_hz)
    sounds = [("0-alarm", done.samples[worst.frame : end], clip.rate_hz)]
    sounds += [(f"{i}-normal", samples, rate_hz) for i, (_, samples, rate_hz) in enumerate(found, 1)]
    for name, samples, rate_hz in sounds:
        suffix = ".wav" if bits_of(samples) == 32 else ".flac"
        for old in folder.glob(f"{name}.*"):
            old.unlink()
        _write(folder / f"{name}{suffix}", encode_sound(samples, rate_hz, suffix))
    words = f"the alarm and {len(found)} normal windows" if found else f"the alarm alone: {GONE}"
    print(f"to compare by ear: {folder}, {words}", file=sys.stderr)


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as exc:
        raise AsdError(f"{path}: cannot be written ({exc.strerror})") from exc
