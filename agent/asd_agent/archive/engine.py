"""Workers side by side: on Ray (one machine or a cluster), or in processes of this one. The work is the same."""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import ctypes
import importlib.util
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal

import msgspec

from asd_agent.archive.batches import Batch
from asd_agent.archive.results import Part
from asd_agent.archive.worker import Job, Worker
from asd_agent.errors import AsdError, UsageError

EngineName = Literal["auto", "ray", "processes"]
BATCHES_AT_ONCE = 1000  # that Ray is given: what it holds of the list of recordings
OBJECTS_BYTES = 200 << 20  # of Ray's store on one machine: only lists of recordings pass through it
_PR_SET_PDEATHSIG = 1
_worker: Worker | None = None  # of a process


class Engine(msgspec.Struct, frozen=True):
    """Who works. `workers` None = as many as there are cores."""

    name: EngineName = "auto"
    workers: int | None = None
    address: str | None = None  # of a Ray cluster, "auto" = the one of this machine; None = started for the run

    def run(self, job: Job, batches: Iterable[Batch]) -> Iterator[Part]:
        """What becomes of the batches, in any order. Raises AsdError where the work cannot go on: run it again."""
        if self.ray:
            return _on_ray(job, batches, self)
        return _in_processes(job, batches, self.workers or max(1, cores() // job.threads))

    @property
    def ray(self) -> bool:
        """Raises UsageError where it is asked for and not installed."""
        installed = importlib.util.find_spec("ray") is not None
        if self.name == "ray" and not installed:
            raise UsageError("--engine ray: Ray is not installed (pip install 'asd-agent[archive]')")
        return self.name == "ray" or (self.name == "auto" and installed)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def _in_processes(job: Job, batches: Iterable[Batch], workers: int) -> Iterator[Part]:
    if workers == 1:
        yield from map(Worker(job), batches)
        return
    pool = futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (job, os.getpid()))
    waiting: set[futures.Future[Part]] = set()
    try:
        for batch in batches:
            waiting.add(pool.submit(_work, batch))
            if len(waiting) >= 2 * workers:
                done, waiting = futures.wait(waiting, return_when=futures.FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in futures.as_completed(waiting))
    except futures.BrokenExecutor as exc:
        raise AsdError("a worker process was killed (out of memory?); run the command again: it goes on there") from exc
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(job: Job, parent: int) -> None:
    global _worker
    _end_with(parent)
    _worker = Worker(job)


def _work(batch: Batch) -> Part:
    assert _worker is not None
    return _worker(batch)


def _end_with(parent: int) -> None:
    """The kernel ends this process with its parent, whatever ends that."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all: the parent ends the pool


class RayWorker:
    """A `Worker` as an actor of Ray Data. What fails comes back as a row, in our words."""

    def __init__(self, job: bytes) -> None:
        self._worker = Worker(msgspec.json.decode(job, type=Job))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            part = self._worker(msgspec.json.decode(row["batch"], type=Batch))
        except AsdError as exc:
            return {"part": b"", "error": str(exc)}
        return {"part": msgspec.json.encode(part), "error": ""}


def _on_ray(job: Job, batches: Iterable[Batch], engine: Engine) -> Iterator[Part]:
    with _cluster(engine) as ray:
        workers = engine.workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // job.threads)
        remaining = iter(batches)
        while chunk := [{"batch": msgspec.json.encode(batch)} for batch in islice(remaining, BATCHES_AT_ONCE)]:
            parts = ray.data.from_items(chunk, override_num_blocks=len(chunk)).map(
                RayWorker,
                fn_constructor_args=(msgspec.json.encode(job),),
                compute=ray.data.ActorPoolStrategy(size=min(workers, len(chunk))),
                num_cpus=job.threads,
                num_gpus=1 if job.device == "cuda" else 0,
            )
            for row in parts.iter_rows():
                if row["error"]:
                    raise AsdError(row["error"])
                yield msgspec.json.decode(row["part"], type=Part)


@contextlib.contextmanager
def _cluster(engine: Engine) -> Iterator[Any]:
    """Ray with a cluster: the one at the address, else one of this machine that ends with the run."""
    import logging

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own hints are not for our users
    import ray
    import ray.data

    ours = not ray.is_initialized()
    if ours:
        local: dict[str, Any] = (
            {} if engine.address else {"num_cpus": engine.workers or cores(), "object_store_memory": OBJECTS_BYTES}
        )
        try:
            ray.init(engine.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, ValueError, RuntimeError) as exc:
            raise AsdError(f"Ray does not start: {' '.join(str(exc).split())[:300]}") from exc
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
