"""A run over an archive: what is to be done, what was done before, and the workers on the rest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from asd_agent import config
from asd_agent.archive.batches import Batch, batches
from asd_agent.archive.engine import Engine
from asd_agent.archive.recordings import Naming, Recording, found
from asd_agent.archive.results import Done, Part, Results
from asd_agent.archive.worker import Job, baseline_name
from asd_agent.config.kinematics import Mechanism
from asd_agent.encode.bundle import Bundle
from asd_agent.errors import StoreError, UsageError

FORMAT = 1
JOB = "job.json"


class MadeWith(msgspec.Struct, frozen=True):
    """All that the numbers of a machine depend on, beside its sound."""

    window_s: float
    hop_s: float
    channel: int
    bundles: dict[str, str]  # name -> checksum
    distance: str | None
    quality: config.QualityLimits
    mechanism: Mechanism | None
    reference: config.Reference | None
    alarm: config.Alarm
    baseline: str  # checksum of the packed one; empty = none

    @classmethod
    def of(cls, machine: config.Machine, baseline: bytes) -> MadeWith:
        return cls(
            machine.window_s,
            machine.hop_s,
            machine.source.channel,
            {name: Bundle.load(name).sha256 for name in machine.bundles},
            machine.distance,
            machine.quality,
            machine.mechanism,
            machine.reference,
            machine.alarm,
            hashlib.sha256(baseline).hexdigest() if baseline else "",
        )


class JobFile(msgspec.Struct, frozen=True):
    """job.json."""

    format: int
    source: str
    machines: dict[str, MadeWith]


@dataclass
class Totals:
    """Of a run, or of one machine in it."""

    recordings: int = 0
    size: int = 0  # bytes
    seconds: float = 0.0
    windows: int = 0
    anomalous: int = 0
    failed: int = 0  # recordings that could not be read (further)

    def add(self, part: Part) -> None:
        self.recordings += len(part.outcomes)
        self.size += sum(o.recording.size for o in part.outcomes)
        self.seconds += sum(o.seconds for o in part.outcomes)
        self.windows += sum(o.windows for o in part.outcomes)
        self.anomalous += sum(o.anomalous for o in part.outcomes)
        self.failed += sum(bool(o.error) for o in part.outcomes)


@dataclass
class Progress:
    """While a run is on: what there is, what had been done before, what has been done now."""

    all: Totals = field(default_factory=Totals)
    before: int = 0  # recordings
    now: Totals = field(default_factory=Totals)
    unknown: Counter[str] = field(default_factory=Counter)  # folder -> recordings of no configured machine


Watch = Callable[[Progress], None]


def score(
    paths: Sequence[str], naming: Naming, job: Job, baselines: Mapping[str, bytes], engine: Engine, watch: Watch,
    retry_failed: bool = False,
) -> Progress:  # fmt: skip
    """Bring the results up to the archive. `baselines`: packed, of the machines; empty while calibrating.

    Raises AsdError; what was done until then stays, and another run goes on from there.
    """
    results = Results(job.results)
    begin(results, job, baselines)
    done = Done(results, retry_failed)
    progress = Progress()
    done.forget_changed(_counted(paths, naming, job, progress))
    todo = (recording for recording in _known(paths, naming, job) if not _seen(recording, done, progress))
    for part in engine.run(job, batches(todo, results)):
        progress.now.add(part)
        watch(progress)
    return progress


def rescore(job: Job, baselines: Mapping[str, bytes], engine: Engine, watch: Watch) -> Progress:
    """The stored windows of `job.source`, judged again. Raises AsdError."""
    results, source = Results(job.results), Results(job.source)
    begin(results, job, baselines)
    progress = Progress()
    names = [name for name in source.part_names() if _machine(name) in job.machines]
    if not names:
        raise StoreError(f"{job.source}: holds no windows of {', '.join(job.machines)}")
    before = set(results.part_names())

    def todo() -> Iterator[Batch]:
        for name in names:
            part = source.part(name)
            assert part is not None
            progress.all.add(part)
            if name in before:
                progress.before += len(part.outcomes)
            else:
                yield Batch(part.machine, part.day, name, part.recordings)

    for part in engine.run(job, todo()):
        progress.now.add(part)
        watch(progress)
    return progress


def begin(results: Results, job: Job, baselines: Mapping[str, bytes]) -> None:
    """Write down what the results are made with. Raises UsageError where they were begun with something else."""
    stored = results.read(JOB)
    known = JobFile(FORMAT, job.source, {})
    if stored is not None:
        try:
            known = msgspec.json.decode(stored, type=JobFile)
        except msgspec.MsgspecError as exc:
            raise StoreError(f"{results.url}/{JOB}: cannot be read ({exc}); begin with another folder") from exc
    if known.format != FORMAT or known.source != job.source:
        raise UsageError(f"{results.url}: holds results of another kind: take another folder (-o)")
    machines = {name: MadeWith.of(machine, baselines.get(name, b"")) for name, machine in job.machines.items()}
    for name, made_with in machines.items():
        before = known.machines.get(name, made_with)
        if before != made_with:
            fields = (f.name for f in msgspec.structs.fields(MadeWith))
            other = ", ".join(f for f in fields if getattr(before, f) != getattr(made_with, f))
            raise UsageError(
                f"{results.url}: was begun with another {other} of {name}: take another folder (-o), or judge what is "
                "there again with `asd-agent archive rescore`"
            )
    for name, data in baselines.items():
        if results.read(baseline_name(name)) is None:
            results.write(baseline_name(name), data)
    if known.machines | machines != known.machines or stored is None:
        results.write(JOB, msgspec.json.encode(JobFile(FORMAT, job.source, known.machines | machines)))


def totals(results: Results) -> dict[str, Totals]:
    """By machine, over all that is there."""
    out: dict[str, Totals] = {}
    for name in results.part_names():
        part = results.part(name)
        if part is not None:
            out.setdefault(part.machine, Totals()).add(part)
    return out


def _counted(paths: Sequence[str], naming: Naming, job: Job, progress: Progress) -> Iterator[Recording]:
    for recording in found(paths, naming):
        if recording.machine in job.machines:
            progress.all.recordings += 1
            progress.all.size += recording.size
            yield recording
        else:
            progress.unknown[recording.machine or recording.url.rpartition("/")[0]] += 1


def _known(paths: Sequence[str], naming: Naming, job: Job) -> Iterator[Recording]:
    return (recording for recording in found(paths, naming) if recording.machine in job.machines)


def _seen(recording: Recording, done: Done, progress: Progress) -> bool:
    seen = recording in done
    progress.before += seen
    return seen


def _machine(part_name: str) -> str:
    return part_name.split("/")[1].removeprefix("machine=")
