"""Which alarms other bundles, window lengths and alarm settings would have raised over the same recordings.

Sound is encoded once for each bundle and window length; alarm settings only decide again.

    <folder>/<bundle>-<window>s/stored          what the encoder made of all windows
                               /<until>/state   baselines of the sound that a person calls normal: until then
                               /<until>/judged  all windows, judged by them
    <folder>/report.html
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import msgspec

from asd_agent import config
from asd_agent.archive import run
from asd_agent.archive.alarms import ArchiveAlarm, Seen, alarms, decided
from asd_agent.archive.calibrate import calibrate
from asd_agent.archive.engine import Engine
from asd_agent.archive.recordings import Naming
from asd_agent.archive.results import Results
from asd_agent.archive.worker import Job, stored_baseline
from asd_agent.baseline import BaselineStore
from asd_agent.baseline.packed import pack
from asd_agent.errors import CalibrationError
from asd_agent.types import State

BUCKETS = 480  # of the plotted time
_JUDGED = (State.NORMAL, State.ANOMALOUS)
Watches = Callable[[str], run.Watch]


class Encoding(msgspec.Struct, frozen=True):
    """A bundle and a window length: what has to be encoded anew."""

    bundle: str
    window_s: float

    @property
    def name(self) -> str:
        return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', self.bundle.rstrip('/').rpartition('/')[2])}-{self.window_s:g}s"

    def of(self, machine: config.Machine) -> config.Machine:
        """The machine with it; windows overlap as they do in its configuration."""
        hop_s = max(0.1, round(self.window_s * machine.hop_s / machine.window_s, 3))
        return msgspec.structs.replace(machine, bundle=self.bundle, window_s=self.window_s, hop_s=hop_s)


class Setting(msgspec.Struct, frozen=True):
    """One candidate for the configuration."""

    encoding: Encoding
    votes: str | None  # None = as configured
    budget: float | None  # false alarms a month

    @property
    def name(self) -> str:
        votes = f", votes {self.votes}" if self.votes is not None else ""
        budget = f", budget {self.budget:g}" if self.budget is not None else ""
        return f"{self.encoding.bundle} {self.encoding.window_s:g} s{votes}{budget}"

    def of(self, machine: config.Machine) -> config.Machine:
        alarm = machine.alarm
        if self.votes is not None:
            alarm = msgspec.structs.replace(alarm, window_votes=self.votes)
        if self.budget is not None:
            alarm = msgspec.structs.replace(alarm, false_alarms_per_month=self.budget)
        return msgspec.structs.replace(self.encoding.of(machine), alarm=alarm)


@dataclass
class Outcome:
    """What a setting would have done for one machine, after the sound that it learnt from."""

    setting: str
    machine: str
    verdict: str  # what the calibration is worth
    limit: float | None = None  # score from which a window deviates
    first_utc_s: float = math.inf
    last_utc_s: float = -math.inf
    windows: int = 0
    judged: int = 0
    anomalous: int = 0
    alarms: list[ArchiveAlarm] = field(default_factory=list)
    series: list[tuple[float, float]] = field(default_factory=list)  # time, highest score around it

    @property
    def days(self) -> float:
        return max(self.last_utc_s - self.first_utc_s, 0.0) / 86_400


def settings(
    bundles: Sequence[str], windows_s: Sequence[float], votes: Sequence[str | None], budgets: Sequence[float | None]
) -> list[Setting]:
    """All combinations."""
    return [Setting(Encoding(b, w), v, n) for b, w, v, n in product(bundles, windows_s, votes, budgets)]


@dataclass(frozen=True)
class Comparison:
    """What is compared, on what."""

    folder: Path
    paths: Sequence[str]
    naming: Naming
    machines: Mapping[str, config.Machine]
    normal_until_utc_s: float  # recordings that began before it teach, the others are judged
    engine: Engine
    job: Job  # whose threads and device count

    def run(self, chosen: Sequence[Setting], watches: Watches) -> list[Outcome]:
        """Raises AsdError; another run goes on where this one stopped."""
        outcomes = []
        for encoding in dict.fromkeys(setting.encoding for setting in chosen):
            machines = {name: encoding.of(machine) for name, machine in self.machines.items()}
            verdicts = self._encode(encoding, machines, watches)
            judged = Results(str(self._learnt(encoding) / "judged"))
            for setting in chosen:
                if setting.encoding == encoding:
                    outcomes += [
                        self._decide(judged, setting, self.machines[name], verdict)
                        for name, verdict in verdicts.items()
                    ]
        return outcomes

    def _encode(self, encoding: Encoding, machines: dict[str, config.Machine], watches: Watches) -> dict[str, str]:
        """Describe, learn, judge. The verdicts on the calibrations, by machine."""
        folder = self._learnt(encoding)
        stored, judged = str(folder.parent / "stored"), str(folder / "judged")
        replace = msgspec.structs.replace
        job = replace(self.job, results=stored, machines=machines, calibrating=True)
        run.score(self.paths, self.naming, job, {}, self.engine, watches(f"{encoding.name}: encoding"))
        verdicts, baselines = {}, {}
        for name in sorted(run.totals(Results(stored))):
            store = BaselineStore(folder / "state", name)
            version = store.pointers().candidate
            if version is None:
                try:
                    version = self._learn(Results(stored), machines[name], store)
                except CalibrationError as exc:
                    verdicts[name] = f"not calibrated: {exc}"
                    continue
            verdicts[name] = store.load(version).manifest.report.verdict
            baselines[name] = pack(store, version)
        if baselines:
            job = replace(
                self.job, results=judged, machines={name: machines[name] for name in baselines}, source=stored,
                embeddings=False,
            )  # fmt: skip
            run.rescore(job, baselines, self.engine, watches(f"{encoding.name}: judging"))
        return verdicts

    def _learnt(self, encoding: Encoding) -> Path:
        until = dt.datetime.fromtimestamp(self.normal_until_utc_s, dt.UTC)
        return self.folder / encoding.name / until.strftime("%Y%m%dT%H%M%SZ")

    def _learn(self, stored: Results, machine: config.Machine, store: BaselineStore) -> str:
        baseline = calibrate(stored, machine, store, until_utc_s=self.normal_until_utc_s)
        return baseline.manifest.version

    def _decide(self, judged: Results, setting: Setting, machine: config.Machine, verdict: str) -> Outcome:
        outcome = Outcome(setting.name, machine.id, verdict)
        if not judged.part_names(machine.id):
            return outcome
        manifest, target = stored_baseline(judged, machine.id).manifest, setting.of(machine)
        outcome.limit = -math.log10(manifest.thresholds(target).alert_p)
        seen = decided(judged, target, manifest, judge_again=True, since_utc_s=self.normal_until_utc_s)
        outcome.alarms = alarms(machine.id, _watched(seen, outcome))
        return outcome


def _watched(seen: Iterator[Seen], outcome: Outcome) -> Iterator[Seen]:
    """Passes the windows on and counts them."""
    peaks: dict[int, tuple[float, float]] = {}  # by minute
    for window in seen:
        result = window.result
        outcome.first_utc_s = min(outcome.first_utc_s, result.utc_s)
        outcome.last_utc_s = max(outcome.last_utc_s, result.utc_s)
        outcome.windows += 1
        outcome.judged += result.state in _JUDGED
        outcome.anomalous += result.state is State.ANOMALOUS
        if result.score is not None:
            minute = int(result.utc_s // 60)
            peaks[minute] = max(
                peaks.get(minute, (result.utc_s, 0.0)), (result.utc_s, result.score), key=lambda x: x[1]
            )
        yield window
    outcome.series = thinned([peaks[minute] for minute in sorted(peaks)])


def thinned(points: Sequence[tuple[float, float]], buckets: int = BUCKETS) -> list[tuple[float, float]]:
    """The highest value of each of `buckets` equal times; points in order of time."""
    if len(points) <= buckets:
        return list(points)
    first, span = points[0][0], points[-1][0] - points[0][0]
    highest: dict[int, tuple[float, float]] = {}
    for at, value in points:
        bucket = min(int((at - first) / span * buckets), buckets - 1)
        if bucket not in highest or value > highest[bucket][1]:
            highest[bucket] = (at, value)
    return [highest[bucket] for bucket in sorted(highest)]


@dataclass
class Occasion:
    """Alarms of one machine that overlap in time, whichever setting raised them."""

    machine: str
    begins_utc_s: float
    ends_utc_s: float
    raised: dict[str, ArchiveAlarm]  # by setting; the first of each


def occasions(outcomes: Sequence[Outcome]) -> list[Occasion]:
    """In order of machines and time."""
    found: list[Occasion] = []
    listed = [
        (alarm.machine, alarm.raised_utc_s, o.setting, alarm, o.last_utc_s) for o in outcomes for alarm in o.alarms
    ]
    for machine, raised_utc_s, setting, alarm, last_utc_s in sorted(listed, key=lambda item: item[:3]):
        ends = last_utc_s if alarm.cleared_utc_s is None else alarm.cleared_utc_s
        if found and found[-1].machine == machine and raised_utc_s <= found[-1].ends_utc_s:
            found[-1].raised.setdefault(setting, alarm)
            found[-1].ends_utc_s = max(found[-1].ends_utc_s, ends)
        else:
            found.append(Occasion(machine, raised_utc_s, ends, {setting: alarm}))
    return found
