"""The capture threads of the daemon: one for each distinct device, shared by the machines that listen to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from asd_agent.capture import SourceStatus
from asd_agent.service.capture import CaptureThread
from asd_agent.service.machine import Machine
from asd_agent.service.systemd import Progress


class Captures:
    """The main thread follows the configuration; any thread may ask for a status. The lock guards the threads."""

    def __init__(self, progress: Progress, wake: Callable[[], None]) -> None:
        """`wake` is called when windows may be waiting."""
        self._progress, self._wake = progress, wake
        self._lock = threading.RLock()
        self._threads: dict[str, CaptureThread] = {}  # by device

    def follow(self, machines: Iterable[Machine]) -> None:
        """Start and end threads so that they serve these machines; those whose listeners are unchanged go on."""
        by_device: dict[str, list[Machine]] = {}
        for machine in machines:
            by_device.setdefault(machine.settings.source.device_key(), []).append(machine)
        with self._lock:
            for key, thread in list(self._threads.items()):
                if thread.listeners != tuple(by_device.get(key, ())):
                    thread.close()
                    del self._threads[key]
            for key, listeners in by_device.items():
                if key not in self._threads:
                    name = ",".join(machine.id for machine in listeners)
                    source = listeners[0].settings.source
                    self._threads[key] = CaptureThread(name, source, listeners, self._progress, self._wake)
                    self._threads[key].start()

    def status(self, machine: Machine) -> SourceStatus:
        with self._lock:
            thread = self._threads.get(machine.settings.source.device_key())
        return thread.status() if thread is not None else SourceStatus(available=False, detail="not opened yet")

    def close(self) -> None:
        """Ask all to end, then wait for each."""
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.close()
