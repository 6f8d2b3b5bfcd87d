"""What the daemon says on hours of sound: clean days, faults that stay, everyday sound that passes.

    python benchmarks/stream.py [--data ../shared/data] [--quick] [--bundle FOLDER ...] [--cache FOLDER]
        [-o benchmarks/results] [--name stream]

Machines and days come from `scenes`, calibration and judgement from the classes that ship: `Pipeline.describe` and
`judge`, `calibrate.build`, and what stands between a window and the alarm. Descriptions are kept in the cache, so that
another decision over the same sound takes seconds. What needs the samples again is left out: the check for a lost part
of the spectrum.

An episode is spliced into a clean stream, 15 min after its beginning. A fault counts as found when an alarm is raised
while it lasts; the delay counts from its beginning to the end of the window that raised. A nuisance episode has raised
when an alarm begins between its beginning and a minute after its end. Alarms on clean sound, by the hour, with the 90 %
interval of a Poisson rate; a budget of one a month is 0.0014 an hour, far below what hours can show.

Development: the compressor idling on 20260302 and 20260327, the motor, ToyCar, a simulated machine; five classes of
ESC-10 and six beds. Held out: the compressor on 20260328 and switched off, gearbox, a fan, the other simulated machine;
the other classes and beds. Deterministic.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scenes import FAULTS, Day, Episode, Nuisance, Site, beds, fault, short_nuisance, sites
from sounds import rng_of

from asd_agent import config
from asd_agent.calibration import build as calibrate
from asd_agent.scoring.decision import Decision
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.types import (
    AlarmEvent,
    AlarmState,
    Block,
    Cause,
    Description,
    EventKind,
    Quality,
    Samples,
    Transient,
    WindowResult,
)
from asd_agent.windowing.windower import Windower

LEAD_S, TAIL_S = 900.0, 90.0
SPLICE_S = 300.0  # where in the clean stream; what came before is continued backwards from its end
CHUNK_S = 60.0
LEVELS_DB = (-5.0, -10.0, -15.0, -20.0)
DURATIONS_S = {20.0: 2, 90.0: 4, 600.0: 2, 1800.0: 1}  # of faults, and episodes of each kind and level
LEVELS_OF = {600.0: (-10.0, -15.0), 1800.0: (-15.0, -20.0)}  # of long faults: what is louder is found before
SHORT_DURATIONS_S = {90.0: 1, 600.0: 1}  # on the other machines
CLEAN_S = 1800.0
VERSION = 2  # of the scenes: another one makes what is cached void

Decide = Callable[[Pipeline, Iterable[WindowResult]], Iterator[AlarmEvent]]


# -- windows, described once


@dataclass(frozen=True)
class Cache:
    folder: Path

    def descriptions(self, key: str, make: Callable[[], list[Description]]) -> list[Description]:
        path = self.folder / f"{hashlib.sha256(f'{VERSION} {key}'.encode()).hexdigest()[:24]}.npz"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".part.npz")
            np.savez(temporary, **_packed(make()))  # type: ignore[arg-type]
            temporary.replace(path)
        with np.load(path) as stored:
            return _unpacked({k: stored[k] for k in stored.files})


def _packed(found: Sequence[Description]) -> dict[str, Any]:
    good = [d for d in found if d.embeddings]
    names = list(good[0].embeddings) if good else []
    return {
        "when": np.array([(d.index, d.start_s, d.duration_s, d.utc_s) for d in found]),
        "origin": np.array([d.origin for d in found]),
        "reasons": np.array([" ".join(d.quality.causes) for d in found]),
        "quality": np.array([(q.level_dbfs, q.peak, q.dc, q.clipped) for q in (d.quality for d in found)]),
        "transient": np.array([(t.at_s, t.excess_db) if (t := d.transient) else (np.nan, np.nan) for d in found]),
        **{f"embedding {k}": np.stack([d.embeddings[k] for d in good]) for k in names},
    }


def _unpacked(a: dict[str, Any]) -> list[Description]:
    row, out = 0, []
    names = [k for k in a if k.startswith("embedding ")]
    for i, (index, start_s, duration_s, utc_s) in enumerate(a["when"]):
        causes = tuple(map(Cause, str(a["reasons"][i]).split()))
        at_s, excess_db = a["transient"][i]
        out.append(
            Description(
                index=int(index),
                start_s=start_s,
                duration_s=duration_s,
                utc_s=utc_s,
                origin=str(a["origin"][i]),
                quality=Quality(causes, *map(float, a["quality"][i])),
                embeddings={} if causes else {k[10:]: a[k][row] for k in names},
                transient=None if np.isnan(at_s) else Transient(float(at_s), float(excess_db)),
            )
        )
        row += not causes
    return out


# -- a machine, calibrated


class Calibrated:
    """A site with its baseline; describes what is heard there."""

    def __init__(self, site: Site, bundles: list[str], cache: Cache) -> None:
        self.site = site
        self._cache = cache
        self.machine = config.Machine(
            id="m", source=config.StdinSource(rate_hz=site.rate_hz), window_s=site.window_s, hop_s=site.hop_s,
            bundle=bundles,
        )  # fmt: skip
        self._bare = open_pipeline(self.machine, None)
        made_with = sorted(e.bundle.sha256 for e in self._bare.encoders.values())
        self._key = f"{site.name} {site.window_s} {site.hop_s} {made_with}"
        origins = [recording.origin for recording in site.calibration]
        normal = cache.descriptions(f"{self._key} calibration {origins}", self._calibration)
        self.baseline = calibrate.build(self.machine, normal, self._bare, "benchmark")
        self.pipeline = Pipeline(self.machine, self._bare.encoders, self.baseline)

    def _calibration(self) -> list[Description]:
        return [
            d for r in self.site.calibration
            for d in self._describe([(r.samples, True)], r.origin, self._bare)
        ]  # fmt: skip

    def clean(self, day: Day, seconds: float) -> list[WindowResult]:
        """The first `seconds` of a day."""
        found = self._cache.descriptions(
            f"{self._key} {day.name} clean {seconds}",
            lambda: self._described(lambda a, b: _span(day, a, b), 0, seconds),
        )
        return [self.pipeline.judge(d) for d in found]

    def episode(self, episode: Episode, clean: Sequence[WindowResult]) -> list[WindowResult]:
        """From `LEAD_S` before to `TAIL_S` after the episode; what lies outside it is the clean stream."""
        hop_s, window_s = self.site.hop_s, self.site.window_s
        first = int((episode.start_s - window_s) // hop_s) + 1  # the windows that hear some of it
        end = int((episode.start_s + episode.seconds) // hop_s) + 1
        touched = self._cache.descriptions(
            f"{self._key} {episode.name}",
            lambda: self._described(episode.span, first * hop_s, end * hop_s - hop_s + window_s),
        )
        shift = first - touched[0].index
        before = round(LEAD_S / hop_s)
        lead = [*clean, *clean[:first]][-before:]
        tail = clean[end - round(episode.seconds / hop_s) :][: round(TAIL_S / hop_s)]  # the clean stream may be short
        loud = [_moved(self.pipeline.judge(d), d.index + shift, hop_s) for d in touched[: end - first]]
        lead = [_moved(r, first - before + i, hop_s) for i, r in enumerate(lead)]
        return [*lead, *loud, *(_moved(r, end + i, hop_s) for i, r in enumerate(tail))]

    def _described(self, span: Callable[[float, float], Samples], first_s: float, end_s: float) -> list[Description]:
        cuts = [*np.arange(first_s, end_s, CHUNK_S), end_s]
        parts = ((span(a, b), b == end_s) for a, b in itertools.pairwise(cuts))
        return self._describe(parts, "", self._bare)

    def _describe(self, parts: Iterable[tuple[Samples, bool]], origin: str, pipeline: Pipeline) -> list[Description]:
        rate_hz, at, out = self.site.rate_hz, 0, []
        windower = Windower(rate_hz, self.site.window_s, self.site.hop_s, pipeline.rates)
        for samples, last in parts:
            block = Block(samples[:, None], rate_hz, at, at / rate_hz, 0.0, origin=origin, last=last)
            out += [pipeline.describe(w) for w in windower.push(block, 0)]
            at += len(samples)
        return out


def _span(day: Day, first_s: float, end_s: float) -> Samples:
    return day.span(round(first_s * day.rate_hz), round(end_s * day.rate_hz))


def _moved(result: WindowResult, index: int, hop_s: float) -> WindowResult:
    return replace(result, index=index, start_s=index * hop_s, utc_s=index * hop_s)


# -- episodes


def fault_episodes(site: Site, quick: bool) -> list[Episode]:
    plan = DURATIONS_S if site.thorough else SHORT_DURATIONS_S
    return [
        _fault(site, kind, level_db, seconds, n)
        for seconds, count in plan.items()
        if not quick or seconds <= 90
        for kind in FAULTS
        for n in range(1 if quick else count)
        for level_db in LEVELS_OF.get(seconds, LEVELS_DB)
    ]


def _fault(site: Site, kind: str, level_db: float, seconds: float, n: int) -> Episode:
    day = site.days[n % len(site.days)]
    name = f"{site.name} {kind} {n} {level_db} dB {seconds} s"
    start_s = SPLICE_S + float(rng_of("start", name).uniform(0, 60))
    loop = partial(fault, kind, site.rate_hz, f"{site.name} {n}")
    return Episode(day, "fault", kind, level_db, seconds, start_s, False, name, loop)


def nuisance_episodes(site: Site, data: Path, quick: bool) -> list[Episode]:
    """Short ones of 5 to 20 s at -5 and +5 dB by turns; beds of 4 and 10 min at -5 dB."""
    short, long = short_nuisance(data), beds(data)
    out = []
    for n, one in enumerate(short[:: 1 if site.thorough and not quick else 4]):
        seconds = float(rng_of("length", site.name, n).uniform(5, 20))
        out += [_nuisance(site, one, (-5.0, 5.0)[n % 2], round(seconds, 1), n)]
    for n, one in enumerate(long[:: 1 if site.thorough and not quick else 4]):
        out += [_nuisance(site, one, -5.0, 240.0 if n % 4 else 600.0, n)]
    return out


def _nuisance(site: Site, one: Nuisance, level_db: float, seconds: float, n: int) -> Episode:
    day = site.days[n % len(site.days)]
    name = f"{site.name} {one.path.name} {n} {level_db} dB {seconds} s"
    start_s = SPLICE_S + float(rng_of("start", name).uniform(0, 60))
    loop = partial(one.loop, site.rate_hz, f"{site.name} {n}")
    return Episode(day, "nuisance", one.kind, level_db, seconds, start_s, one.held_out, name, loop)


# -- decisions


def daemon(pipeline: Pipeline, results: Iterable[WindowResult]) -> Iterator[AlarmEvent]:
    """What the daemon does with judged windows."""
    assert pipeline.baseline is not None
    decision = Decision(pipeline.machine, pipeline.baseline.manifest, AlarmState())
    for result in results:
        yield from decision.update(result, True)


@dataclass(frozen=True)
class Outcome:
    """What became of an episode."""

    site: str
    development: bool
    episode: Episode
    raised_s: float | None  # the first alarm after its beginning, from there
    trigger: str  # of that alarm
    before: bool  # an alarm stood when the episode began

    @property
    def found(self) -> bool:
        return self.raised_s is not None and self.raised_s <= self.episode.seconds + 1e-6


def outcome(calibrated: Calibrated, episode: Episode, results: Sequence[WindowResult], decide: Decide) -> Outcome:
    most_s = episode.seconds if episode.what == "fault" else episode.seconds + 60
    site, before = calibrated.site, False
    for event in decide(calibrated.pipeline, results):
        after_s = event.utc_s - episode.start_s
        if after_s < 0:
            before = {EventKind.RAISED: True, EventKind.CLEARED: False}.get(event.kind, before)
        elif event.kind is EventKind.RAISED and after_s <= most_s:
            return Outcome(site.name, site.development, episode, after_s, event.trigger or "", before)
    return Outcome(site.name, site.development, episode, None, "", before)


@dataclass(frozen=True)
class Clean:
    """What became of clean sound."""

    site: str
    development: bool
    hours: float
    alarms: int
    below: dict[str, float]  # p -> share of the windows below it


def clean_of(calibrated: Calibrated, results: Sequence[WindowResult], decide: Decide) -> Clean:
    events = list(decide(calibrated.pipeline, results))
    p = np.array([r.p_value for r in results if r.p_value is not None])
    site = calibrated.site
    return Clean(
        site.name, site.development, len(results) * site.hop_s / 3600,
        sum(e.kind is EventKind.RAISED for e in events), {f"{q:g}": float((p <= q).mean()) for q in (0.05, 0.01)},
    )  # fmt: skip


def evaluate(
    data: Path, bundles: list[str], cache: Cache, quick: bool, decide: Decide = daemon
) -> tuple[list[Clean], list[Outcome]]:
    clean: list[Clean] = []
    outcomes: list[Outcome] = []
    for site in sites(data):
        began = time.perf_counter()
        calibrated = Calibrated(site, bundles, cache)
        streams = {day.name: calibrated.clean(day, 600.0 if quick else CLEAN_S) for day in site.days}
        clean += [clean_of(calibrated, stream, decide) for stream in streams.values()]
        for episode in [*fault_episodes(site, quick), *nuisance_episodes(site, data, quick)]:
            results = calibrated.episode(episode, streams[episode.day.name])
            outcomes.append(outcome(calibrated, episode, results, decide))
        print(f"{site.name}: {time.perf_counter() - began:.0f} s", flush=True)
    return clean, outcomes


# -- figures


def summary(clean: Sequence[Clean], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        split: {
            "clean": _clean_row([c for c in clean if c.development is development]),
            "faults": _faults([o for o in outcomes if o.episode.what == "fault" and o.development is development]),
            "nuisance": _nuisances([
                o for o in outcomes
                if o.episode.what == "nuisance" and development is (o.development and not o.episode.held_out)
            ]),
        }
        for split, development in (("development", True), ("held_out", False))
    }  # fmt: skip


def _clean_row(found: Sequence[Clean]) -> dict[str, Any]:
    hours, alarms = sum(c.hours for c in found), sum(c.alarms for c in found)
    low, high = poisson(alarms)
    return {
        "hours": round(hours, 2),
        "alarms": alarms,
        "per_month": [round(v / hours * 730.5, 1) for v in (low, alarms, high)],
        "share_of_windows_below_p": {
            p: round(float(np.average([c.below[p] for c in found], weights=[c.hours for c in found])), 4)
            for p in found[0].below
        },
        "by_machine": {c.site: c.alarms for c in found if c.alarms},
    }


def poisson(count: int) -> tuple[float, float]:
    """Exact 90 % interval of a Poisson mean (Garwood, 1936)."""
    from scipy.stats import chi2

    return float(chi2.ppf(0.05, 2 * count) / 2) if count else 0.0, float(chi2.ppf(0.95, 2 * count + 2) / 2)


def _faults(found: Sequence[Outcome]) -> dict[str, Any]:
    """seconds -> level -> share found and median delay, of all kinds and by kind."""
    groups: dict[tuple[float, float], list[Outcome]] = defaultdict(list)
    for o in found:
        groups[o.episode.seconds, o.episode.level_db].append(o)
    out: dict[str, Any] = defaultdict(dict)
    for (seconds, level_db), members in sorted(groups.items(), key=lambda g: (g[0][0], -g[0][1])):
        out[f"{seconds:g} s"][f"{level_db:g} dB"] = {
            "episodes": len(members),
            "found": _share([o.found for o in members]),
            "delay_s": _median([o.raised_s for o in members if o.found]),
            **{kind: _share([o.found for o in members if o.episode.kind == kind]) for kind in FAULTS},
            "by": dict(Counter(o.trigger for o in members if o.found)),
            "alarm_stood_before": sum(o.before for o in members),
        }
    return dict(out)


def _nuisances(found: Sequence[Outcome]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, least, most in (("short", 0, 30), ("4 min", 200, 300), ("10 min", 500, 900)):
        members = [o for o in found if least <= o.episode.seconds < most]
        if members:
            raised = [o for o in members if o.raised_s is not None]
            kinds: dict[str, list[bool]] = defaultdict(list)
            for o in members:
                kinds[o.episode.kind].append(o.raised_s is not None)
            out[name] = {
                "episodes": len(members),
                "raised": len(raised),
                "share": _share([o.raised_s is not None for o in members]),
                "by_level": {
                    f"{db:g} dB": _share([o.raised_s is not None for o in members if o.episode.level_db == db])
                    for db in sorted({o.episode.level_db for o in members})
                },
                "by_kind": {k: _share(v) for k, v in sorted(kinds.items())},
            }
    return out


def _share(values: Sequence[bool]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None


def _median(values: Sequence[float | None]) -> float | None:
    return round(float(np.median([v for v in values if v is not None])), 1) if values else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--bundle", action="append", default=[], help="a further encoder beside `default`")
    parser.add_argument("--quick", action="store_true", help="few episodes; writes nothing")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "asd-agent-stream")
    parser.add_argument("--name", default="stream", help="of the file written")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    start = time.perf_counter()
    found = summary(*evaluate(args.data, ["default", *args.bundle], Cache(args.cache), args.quick))
    print(json.dumps(found, indent=1))
    if not args.quick:
        args.output.mkdir(exist_ok=True)
        (args.output / f"{args.name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
