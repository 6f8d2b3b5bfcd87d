"""One worker: a batch of recordings, or the stored windows of a part, through the agent's own pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import msgspec

from asd_agent import config
from asd_agent.archive.batches import Batch
from asd_agent.archive.recordings import Recording, local_copy
from asd_agent.archive.results import Outcome, Part, Results
from asd_agent.archive.table import Row, Rows, descriptions, is_window, rows
from asd_agent.baseline import Baseline
from asd_agent.baseline.packed import unpack
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Device, Encoder, shared_encoder
from asd_agent.errors import SourceError, StoreError
from asd_agent.scoring.pipeline import Pipeline, Step
from asd_agent.types import Description, State, Window
from asd_agent.windowing.recordings import recorded_windows
from asd_agent.windowing.signal_chain import EVERY_WHILE_CALIBRATING_S, Sampler

MOST_PIPELINES = 8  # of machines, at hand in a worker


class Job(msgspec.Struct, frozen=True):
    """What all workers have to know; small, and the same for each."""

    results: str  # URL
    machines: dict[str, config.Machine]
    source: str = ""  # results whose stored windows are judged again; empty = recordings are read
    calibrating: bool = False  # no baseline judges, and the signal chain is looked at as for a calibration
    embeddings: bool = True  # are stored
    threads: int = 1  # of an encoder
    device: Device = "cpu"


class Worker:
    """Holds the encoders and the pipelines of the machines that came last. Not thread-safe."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._results = Results(job.results)
        self._source = Results(job.source) if job.source else None
        self._pipelines: dict[str, Pipeline] = {}
        self._encoders: dict[str, Encoder] = {}  # `shared_encoder` keeps only what somebody holds

    def __call__(self, batch: Batch) -> Part:
        """What became of the batch; it is written. One that has been written already is not done again.

        Raises AsdError where results, bundle or baseline fail; a recording that cannot be read is a row.
        """
        if (known := self._results.part(batch.part)) is not None:
            return known
        collected = Rows()
        if self._source is None:
            outcomes = [self._recording(recording, collected) for recording in batch.recordings]
        else:
            outcomes = self._again(self._source, batch, collected)
        part = Part(batch.machine, batch.day, outcomes)
        self._results.write_part(batch.part, part, collected.table())
        return part

    def _recording(self, recording: Recording, collected: Rows) -> Outcome:
        pipeline = self._pipeline(recording.machine)
        count, anomalous, seconds, error = 0, 0, 0.0, ""
        sampler = Sampler(EVERY_WHILE_CALIBRATING_S) if self._job.calibrating else None
        try:
            for window in _windows(recording, pipeline):
                description = pipeline.describe(window)
                if sampler is not None:
                    description = sampler.add(window, description)
                step = pipeline.step(window, description=description)
                self._add(collected, recording, step)
                count += 1
                anomalous += step.result.state is State.ANOMALOUS
                seconds = window.start_s + window.duration_s
        except SourceError as exc:
            error = str(exc)
            collected.fail(recording.url, recording.utc_s, error)
        return Outcome(recording, count, seconds, anomalous, error)

    def _add(self, collected: Rows, recording: Recording, step: Step) -> None:
        described = step.description
        if not self._job.embeddings:
            described = _without_embeddings(described)
        collected.add(recording.url, recording.utc_s, described, step.result)

    # -- stored windows

    def _again(self, source: Results, batch: Batch, collected: Rows) -> list[Outcome]:
        """The windows of a part, judged from what is stored of them."""
        table = source.table(batch.part)
        stored = {file: list(found) for file, found in groupby(rows(table), key=lambda row: row["file"])}
        known = source.part(batch.part)
        assert known is not None
        outcomes = []
        for outcome in known.outcomes:
            found = stored.get(outcome.recording.url, [])
            windows = [row for row in found if is_window(row)]
            described = descriptions(table, windows)
            anomalous = self._judge(outcome.recording, windows, described, collected)
            if outcome.error:
                collected.fail(outcome.recording.url, outcome.recording.utc_s, outcome.error)
            outcomes.append(msgspec.structs.replace(outcome, anomalous=anomalous))
        return outcomes

    def _judge(
        self, recording: Recording, windows: Sequence[Row], described: Sequence[Description], collected: Rows
    ) -> int:
        """How many deviate. Only of a recording with windows that do is the sound looked at: why they do."""
        pipeline = self._pipeline(recording.machine)
        found = [pipeline.judge(description) for description in described]
        wanted = {d.index: i for i, d in enumerate(described) if found[i].state is State.ANOMALOUS}
        if wanted:
            try:
                for window in _windows(recording, pipeline):
                    if (i := wanted.get(window.index)) is not None:
                        found[i] = pipeline.step(window, description=described[i]).result
            except SourceError:
                pass  # not there any more, or damaged since: the judgement stands, without what the sound says of it
        for description, result in zip(described, found, strict=True):
            bare = _without_embeddings(description)
            collected.add(recording.url, recording.utc_s, bare, result)
        return sum(result.state is State.ANOMALOUS for result in found)

    # -- what judges

    def _pipeline(self, machine_id: str) -> Pipeline:
        found = self._pipelines.pop(machine_id, None) or self._open(machine_id)
        self._pipelines[machine_id] = found
        while len(self._pipelines) > MOST_PIPELINES:
            del self._pipelines[next(iter(self._pipelines))]
        return found

    def _open(self, machine_id: str) -> Pipeline:
        machine = self._job.machines[machine_id]
        for name in machine.bundles:
            if name not in self._encoders:
                self._encoders[name] = shared_encoder(
                    Bundle.load(name), threads=self._job.threads, device=self._job.device
                )
        baseline = None if self._job.calibrating else stored_baseline(self._results, machine_id)
        return Pipeline(machine, {name: self._encoders[name] for name in machine.bundles}, baseline)


def stored_baseline(results: Results, machine_id: str) -> Baseline:
    """The baseline that judges in these results. Raises StoreError, BaselineError."""
    data = results.read(baseline_name(machine_id))
    if data is None:
        raise StoreError(f"{results.url}/{baseline_name(machine_id)}: is missing; begin with another folder")
    return unpack(data, f"{results.url}/{baseline_name(machine_id)}")


def baseline_name(machine_id: str) -> str:
    return f"baselines/{machine_id}.zip"


def _windows(recording: Recording, pipeline: Pipeline) -> Iterator[Window]:
    """Raises SourceError that names the recording, not a copy of it."""
    with local_copy(recording.url) as path:
        try:
            yield from recorded_windows(path, pipeline.machine, pipeline.rates, recording.utc_s)
        except SourceError as exc:
            raise SourceError(str(exc).replace(str(path), recording.url)) from exc


def _without_embeddings(description: Description) -> Description:
    return replace(description, embeddings={})
