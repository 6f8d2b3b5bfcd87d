"""What the daemon says on hours of sound: clean days, faults that stay, everyday sound that passes.

    python benchmarks/stream.py [--data ../shared/data] [--quick] [--bundle FOLDER ...] [--longest 90]
        [--machine NAME ...] [--cache FOLDER] [-o benchmarks/results] [--name stream]

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
import json
import math
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from edetector import EDetector
from heard import Cache, Calibrated, moved
from scenes import FAULTS, Episode, Nuisance, Site, beds, fault, short_nuisance, sites
from sounds import rng_of

from asd_agent.encode.bundle import Bundle
from asd_agent.scoring.decision import Decision
from asd_agent.types import AlarmEvent, AlarmState, EventKind, Level, WindowResult

SPLICE_S = 300.0  # where in the clean stream; what came before is continued backwards from its end
LEVELS_DB = (-5.0, -10.0, -15.0, -20.0)
DURATIONS_S = {20.0: 2, 90.0: 4, 600.0: 2, 1800.0: 1}  # of faults, and episodes of each kind and level
LEVELS_OF = {600.0: (-10.0, -15.0), 1800.0: (-15.0, -20.0)}  # of long faults: what is louder is found before
SHORT_DURATIONS_S = {90.0: 1, 600.0: 1}  # on the other machines
CLEAN_S = 1800.0

Decide = Callable[[Calibrated, Iterable[WindowResult]], Iterator[AlarmEvent]]


# -- episodes


def fault_episodes(site: Site, quick: bool, longest_s: float) -> list[Episode]:
    plan = DURATIONS_S if site.thorough else SHORT_DURATIONS_S
    return [
        _fault(site, kind, level_db, seconds, n)
        for seconds, count in plan.items()
        if seconds <= (90 if quick else longest_s)
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


def daemon(calibrated: Calibrated, results: Iterable[WindowResult]) -> Iterator[AlarmEvent]:
    """What the daemon does with judged windows."""
    decision = Decision(calibrated.machine, calibrated.baseline.manifest, AlarmState())
    for result in results:
        yield from decision.update(result, True)


def sequential(calibrated: Calibrated, results: Iterable[WindowResult]) -> Iterator[AlarmEvent]:
    """The e-detector in place of it, with the whole budget; it begins anew after an alarm."""
    machine = calibrated.machine
    fusions = {state.name: state.fusion for state in calibrated.pipeline.states}

    def fresh() -> EDetector:
        budget = machine.alarm.false_alarms_per_month
        return EDetector(calibrated.held_out, machine.window_s, machine.hop_s, budget)

    detector = fresh()
    for result in results:
        fusion = fusions.get(result.operating)
        if fusion is not None and result.detectors and detector.update(fusion.score(d.z for d in result.detectors)):
            yield AlarmEvent(
                id="", alarm_id="", machine=machine.id, kind=EventKind.RAISED, level=Level.ALERT,
                utc_s=result.utc_s + result.duration_s, time_synced=True, reason="e-detector",
            )  # fmt: skip
            detector = fresh()


@dataclass(frozen=True)
class Outcome:
    """What became of an episode."""

    site: str
    development: bool
    episode: Episode
    raised_s: float | None  # the first alarm after its beginning, from there
    trigger: str  # of that alarm
    before: bool  # an alarm stood when the episode began
    recognised: float  # share of the windows within it that a nuisance family explains

    @property
    def found(self) -> bool:
        return self.raised_s is not None and self.raised_s <= self.episode.seconds + 1e-6


def outcome(calibrated: Calibrated, episode: Episode, results: Sequence[WindowResult], decide: Decide) -> Outcome:
    most_s = episode.seconds if episode.what == "fault" else episode.seconds + 60
    site, before = calibrated.site, False
    inside = [r for r in results if episode.start_s <= r.utc_s <= episode.start_s + episode.seconds - r.duration_s]
    recognised = float(np.mean([bool(r.nuisance) for r in inside])) if inside else 0.0
    for event in decide(calibrated, results):
        after_s = event.utc_s - episode.start_s
        if after_s < 0:
            before = {EventKind.RAISED: True, EventKind.CLEARED: False}.get(event.kind, before)
        elif event.kind is EventKind.RAISED and after_s <= most_s:
            return Outcome(site.name, site.development, episode, after_s, event.trigger or "", before, recognised)
    return Outcome(site.name, site.development, episode, None, "", before, recognised)


@dataclass(frozen=True)
class Clean:
    """What became of clean sound."""

    site: str
    development: bool
    hours: float
    alarms: int
    below: dict[str, float]  # p -> share of the windows below it


def clean_of(calibrated: Calibrated, results: Sequence[WindowResult], decide: Decide) -> Clean:
    events = list(decide(calibrated, results))
    p = np.array([r.p_value for r in results if r.p_value is not None])
    site = calibrated.site
    return Clean(
        site.name, site.development, len(results) * site.hop_s / 3600,
        sum(e.kind is EventKind.RAISED for e in events), {f"{q:g}": float((p <= q).mean()) for q in (0.05, 0.01)},
    )  # fmt: skip


def evaluate(
    chosen: Sequence[Site],
    data: Path,
    bundles: list[str],
    cache: Cache,
    quick: bool,
    longest_s: float,
    decides: Sequence[Decide],
) -> list[tuple[list[Clean], list[Outcome]]]:
    """What each of the decisions does on the same sound."""
    out: list[tuple[list[Clean], list[Outcome]]] = [([], []) for _ in decides]
    for site in chosen:
        began = time.perf_counter()
        calibrated = Calibrated(site, bundles, cache)
        streams = {day.name: calibrated.clean(day, 600.0 if quick else CLEAN_S) for day in site.days}
        for (clean, _), decide in zip(out, decides, strict=True):
            clean += [clean_of(calibrated, stream, decide) for stream in streams.values()]
        for episode in [*fault_episodes(site, quick, longest_s), *nuisance_episodes(site, data, quick)]:
            results = calibrated.episode(episode, streams[episode.day.name])
            for (_, outcomes), decide in zip(out, decides, strict=True):
                outcomes.append(outcome(calibrated, episode, results, decide))
        print(f"{site.name}: {time.perf_counter() - began:.0f} s", flush=True)
    return out


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
        if any(c.development is development for c in clean)
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
            "by_machine": {
                site: f"{sum(o.found for o in members if o.site == site)} of {sum(o.site == site for o in members)}"
                for site in dict.fromkeys(o.site for o in members)
            },
            "by": dict(Counter(o.trigger for o in members if o.found)),
            "recognised_as_nuisance": _mean([o.recognised for o in members]),
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
                "recognised_as_nuisance": _mean([o.recognised for o in members]),
                "share": _share([o.raised_s is not None for o in members]),
                "by_level": {
                    f"{db:g} dB": _share([o.raised_s is not None for o in members if o.episode.level_db == db])
                    for db in sorted({o.episode.level_db for o in members})
                },
                "by_kind": {k: _share(v) for k, v in sorted(kinds.items())},
                "by_machine": {
                    site: f"{sum(o.raised_s is not None for o in members if o.site == site)} of "
                    f"{sum(o.site == site for o in members)}"
                    for site in dict.fromkeys(o.site for o in members)
                },
            }
    return out


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 3)


def _share(values: Sequence[bool]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None


def _median(values: Sequence[float | None]) -> float | None:
    return round(float(np.median([v for v in values if v is not None])), 1) if values else None


def draw(calibrated: Calibrated, data: Path, path: Path) -> None:
    """One stream that a person can read: normal sound, an everyday sound, three faults, and what was said."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    site = calibrated.site
    clean = calibrated.clean(site.days[0], CLEAN_S)
    wanted = (("leak", -10.0), ("bearing", -15.0), ("knock", -15.0))
    chosen = [_fault(site, kind, level, 90.0, 0) for kind, level in wanted]
    chosen.insert(0, next(e for e in nuisance_episodes(site, data, False) if e.seconds > 15))
    decision = Decision(calibrated.machine, calibrated.baseline.manifest, AlarmState())
    rows, spans, index = [], [], 0
    for episode in chosen:
        results = calibrated.episode(episode, clean)
        start_s = index * site.hop_s - results[0].utc_s + episode.start_s
        spans.append((start_s / 60, (start_s + episode.seconds) / 60, f"{episode.kind} {episode.level_db:g} dB"))
        for result in results:
            result = moved(result, index, site.hop_s)
            watched = decision.watch(result)
            events = decision.decide(result, watched, True)
            share = watched.found.share if watched.found is not None else 0.0
            rows.append((result.utc_s / 60, result.score or 0.0, share, decision.alarm.state.active, events))
            index += 1
    minutes, score, share, active, _ = zip(*rows, strict=True)
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 5), sharex=True)
    top.plot(minutes, score, lw=0.7)
    top.axhline(calibrated.pipeline.threshold_score or 0.0, color="tab:red", lw=0.8)
    top.set_ylabel("score of a window")
    bottom.plot(minutes, share, lw=0.9)
    bottom.axhline(1.0, color="tab:red", lw=0.8)
    bottom.set(ylabel="persistence, share of limit", xlabel="minutes", ylim=(-0.5, 3))
    for axis in (top, bottom):
        axis.fill_between(minutes, 0, 1, where=active, transform=axis.get_xaxis_transform(), color="tab:red", alpha=0.2)
        for begin, end, _ in spans:
            axis.axvspan(begin, end, color="tab:orange", alpha=0.3, lw=0)
    for begin, _, words in spans:
        top.annotate(words, (begin, 1.02), xycoords=("data", "axes fraction"), fontsize=8)
    figure.suptitle(f"{site.name}: orange = added sound, red = alarm", y=1.0)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--bundle", action="append", default=[], help="an encoder; several judge side by side")
    parser.add_argument("--quick", action="store_true", help="few episodes; writes nothing")
    parser.add_argument("--machine", action="append", default=[], help="only this one, e.g. 'compressor rest 0328'")
    parser.add_argument("--longest", type=float, default=math.inf, help="seconds of a fault, longer ones are left out")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "asd-agent-stream")
    parser.add_argument("--before", type=Path, help="a file that this command wrote before a change, to go with it")
    parser.add_argument("--name", default="stream", help="of the file written")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    start = time.perf_counter()
    cache, bundles = Cache(args.cache), args.bundle or ["default"]
    chosen = [site for site in sites(args.data) if not args.machine or site.name in args.machine]
    after, other = evaluate(chosen, args.data, bundles, cache, args.quick, args.longest, [daemon, sequential])
    encoder = {name: Bundle.load(name).meta.name for name in bundles}
    found = {"bundles": encoder} | summary(*after) | {"e_detector": summary(*other)}
    if args.before is not None:
        found["before"] = json.loads(args.before.read_text())
    print(json.dumps(found, indent=1))
    if not args.quick:
        args.output.mkdir(exist_ok=True)
        draw(Calibrated(chosen[min(2, len(chosen) - 1)], bundles, cache), args.data, args.output / f"{args.name}.png")
        (args.output / f"{args.name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
