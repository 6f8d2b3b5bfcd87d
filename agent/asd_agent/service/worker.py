"""The thread that scores: one window at a time, the machines in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import structlog

from asd_agent.errors import AsdError
from asd_agent.service.machine import Machine
from asd_agent.service.systemd import Progress

WAIT_S = 1.0
HALT_S = 20.0  # for the window that is being scored at the end
log = structlog.get_logger()


class Worker:
    """`between_windows` is a lock: who holds it knows that no window changes an alarm meanwhile."""

    def __init__(self, machines: Callable[[], Iterable[Machine]], progress: Progress) -> None:
        self.between_windows = threading.Lock()
        self._machines, self._progress = machines, progress
        self._work, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Windows may be waiting."""
        self._work.set()

    def close(self) -> None:
        """End after the window that is being scored."""
        self._stop.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join(HALT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._progress.touch("worker")
            self._work.clear()
            scored = [self._score_one(machine) for machine in self._machines()]
            if not any(scored):
                self._work.wait(WAIT_S)

    def _score_one(self, machine: Machine) -> bool:
        """Score the next window of a machine; False when none waits."""
        window = machine.windows.take()
        if window is None or self._stop.is_set():
            return False
        self._progress.touch("worker")
        try:
            with self.between_windows:
                machine.score(window)
        except AsdError as exc:
            machine.scoring_error = str(exc)
            log.error("window not scored", machine=machine.id, error=str(exc))
        except Exception as exc:
            machine.scoring_error = f"internal error: {exc!r}; see the log"
            log.exception("window not scored", machine=machine.id)
        return True
