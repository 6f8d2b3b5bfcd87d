"""The scores of an alarm computed again from its clip.

A window in a clip is made again to the last bit (`windowing.excerpt`). Configuration, bundle, precision and baseline
are those of the alarm, or the replay is refused: on the same kind of host every number comes out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from asd_agent import config
from asd_agent.baseline import Baseline, BaselineStore
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder, shared_encoder
from asd_agent.errors import BaselineError, BundleError, StoreError
from asd_agent.evidence.clip import SOUND_SUFFIXES, Clip, MadeWith, ScoredWindow, near, read_clip, read_sound, sidecars
from asd_agent.evidence.nearest import Normal, nearest
from asd_agent.evidence.record import software
from asd_agent.reasons import PartVerdict
from asd_agent.scoring.parts import AlarmParts
from asd_agent.scoring.pipeline import Pipeline, Reported, Step
from asd_agent.types import AlarmEvent, AlarmState, Description, Samples, Window, WindowResult
from asd_agent.windowing.excerpt import Excerpt

if TYPE_CHECKING:
    from asd_agent.mechanism import Speed

NORMALS = 64  # the sound of most of a live calibration is not kept


@dataclass(frozen=True)
class Replayed:
    """A window as stored and as computed again."""

    stored: ScoredWindow
    result: WindowResult
    description: Description

    @property
    def same(self) -> bool:
        """Every number, to the last bit."""
        return self.result == self.stored.result


@dataclass(frozen=True)
class Replay:
    clip: Clip
    samples: Samples
    windows: tuple[Replayed, ...]
    left_out: int  # windows that began before the clip or end after it, or that another baseline judged
    normals: tuple[Normal, ...]  # by distance from the last window that voted
    machine: config.Machine
    part: PartVerdict | None  # what the clip's deviating windows, added up, say of the machine's parts
    software: dict[str, str]  # here and now, where it differs from then


# -- finding a clip


def find(state_dir: Path, wanted: str) -> tuple[Path, Clip] | None:
    """The sidecar of an event or an alarm by its id (or how that begins), or by the path of one of its files.

    None when no clip is of that event. Raises StoreError when several are, and for a path that is none of a clip.
    """
    if Path(wanted).suffix in (".json", ".png", *SOUND_SUFFIXES):
        path = Path(wanted).with_suffix(".json")
        return path, read_clip(path)
    found = []
    for sidecar in sidecars(state_dir / "evidence"):
        try:
            clip = read_clip(sidecar)
        except StoreError:
            continue
        if wanted and (clip.event.id.startswith(wanted) or clip.event.alarm_id.startswith(wanted)):
            found.append((sidecar, clip))
    exact = [f for f in found if wanted == f[1].event.id]
    if len(found) > 1 and len(exact) != 1:
        if len({clip.event.alarm_id for _, clip in found}) == 1:
            return found[0]  # the clips of one alarm: the one in which it was raised
        ids = ", ".join(clip.event.id[:12] for _, clip in found[:5])
        raise StoreError(f"{wanted!r} is the beginning of several events ({ids}): give more of it")
    return next(iter(exact or found), None)


def sound_path(sidecar: Path) -> Path:
    """Raises StoreError when the sound is gone."""
    for suffix in SOUND_SUFFIXES:
        if sidecar.with_suffix(suffix).is_file():
            return sidecar.with_suffix(suffix)
    raise StoreError(f"{sidecar}: the sound beside it is gone: nothing to compute a score from")


# -- judging again


def replay(
    sidecar: Path,
    clip: Clip,
    state_dir: Path,
    configured: config.Machine | None,
    update: Callable[[float, str], None] = lambda share, words: None,
) -> Replay:
    """Score the windows of a clip again, with what the alarm was scored with; `update` hears the share done, in words.

    `configured`: the machine as it is configured now; bundles that have moved are looked for there. Raises StoreError,
    BundleError, BaselineError: one line with what is missing or is not what it was then.
    """
    then = clip.made_with
    if then is None:
        raise StoreError(f"{sidecar}: the alarm was raised without a baseline: there is no score to replay")
    samples = read_sound(sound_path(sidecar), clip)
    machine = _machine(sidecar, clip, then)
    pipeline = Pipeline(machine, encoders_of(then, machine, configured), _baseline(state_dir, clip, then))
    windows, parts, part = [], AlarmParts(machine, AlarmState()), None
    for number, stored in enumerate(clip.windows):
        update(number / len(clip.windows), f"window {number + 1} of {len(clip.windows)}")
        window = _window(clip, samples, stored, pipeline) if stored.baseline == then.baseline else None
        if window is not None:
            step = pipeline.step(window, Reported(speed=_speed(stored.speed), operating=stored.operating))
            windows.append(_again(stored, step))
            part = parts.see(pipeline, step, AlarmState())
    now = software()
    return Replay(
        clip=clip,
        samples=near(samples),
        windows=tuple(windows),
        left_out=len(clip.windows) - len(windows),
        normals=tuple(_normals(windows, clip.event, pipeline)),
        machine=machine,
        part=part,
        software={k: v for k, v in now.items() if then.software.get(k) != v},
    )


def _machine(sidecar: Path, clip: Clip, then: MadeWith) -> config.Machine:
    source = {"kind": "stdin", "rate_hz": clip.rate_hz}
    try:
        return msgspec.convert({**then.machine, "source": source}, config.Machine)
    except msgspec.ValidationError as exc:
        raise StoreError(f"{sidecar}: its configuration is not one that this version reads ({exc})") from exc


def encoders_of(then: MadeWith, machine: config.Machine, configured: config.Machine | None) -> dict[str, Encoder]:
    """The bundles of that time, where they were then or where `configured` has them now. Raises BundleError."""
    others = configured.bundles if configured is not None else ()
    return {name: _encoder(name, then, [name, *others]) for name in machine.bundles}


def _encoder(name: str, then: MadeWith, candidates: Sequence[str]) -> Encoder:
    problem = ""
    for candidate in candidates:
        try:
            bundle = Bundle.load(candidate)
        except BundleError as exc:
            problem = problem or str(exc)
            continue
        if bundle.sha256 == then.bundles[name]:
            variant = then.variants[name]
            return shared_encoder(bundle, "int8" if variant == "int8" else "fp32")
        problem = problem or (
            f"the bundle {name!r} is not the one of the alarm: its sha256 is {bundle.sha256[:12]}, "
            f"it was {then.bundles[name][:12]}; put that bundle back"
        )
    raise BundleError(problem)


def _baseline(state_dir: Path, clip: Clip, then: MadeWith) -> Baseline:
    store = BaselineStore(state_dir, clip.event.machine)
    if then.baseline not in store.versions():
        raise BaselineError(f"{clip.event.machine}: baseline {then.baseline}, which judged the alarm, is gone")
    baseline = store.load(then.baseline)
    if (found := store.checksum(then.baseline)) != then.baseline_sha256:
        raise BaselineError(
            f"{clip.event.machine}: baseline {then.baseline} is not the one of the alarm: its checksum is "
            f"{found[:12]}, it was {then.baseline_sha256[:12]}"
        )
    return baseline


def _window(clip: Clip, samples: Samples, stored: ScoredWindow, pipeline: Pipeline) -> Window | None:
    """None when the clip does not hold all that the window was made from."""
    ends = [s.frame for s in clip.segments[1:]] + [len(samples)]
    for segment, end in zip(clip.segments, ends, strict=True):
        if segment.frame <= stored.frame < end:
            excerpt = Excerpt(samples[segment.frame : end], clip.rate_hz, segment.skipped, segment.ended)
            machine = pipeline.machine
            return excerpt.window(stored.number, machine.window_s, machine.hop_s, pipeline.rates)
    return None


def _again(stored: ScoredWindow, step: Step) -> Replayed:
    then = stored.result
    result = replace(step.result, index=then.index, start_s=then.start_s, utc_s=then.utc_s, origin=then.origin)
    return Replayed(stored, result, step.description)


def _speed(reported: dict[str, Any] | None) -> Speed | None:
    if reported is None:
        return None
    from asd_agent.mechanism import Speed

    return msgspec.convert(reported, Speed)


def _normals(windows: Sequence[Replayed], event: AlarmEvent, pipeline: Pipeline) -> list[Normal]:
    voters = [w for w in windows if w.result.index in event.deciding_windows] or list(windows)
    typical = [w for w in voters if event.course is not None and w.result.index == event.course.typical]
    voters += typical  # it stands for the others
    found = pipeline.deciding(voters[-1].result) if voters else None
    if found is None:
        return []
    assert pipeline.baseline is not None
    state, names = found
    return nearest(pipeline.baseline, state, names[0], voters[-1].description, most=NORMALS)
