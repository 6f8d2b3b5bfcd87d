"""The daemon: threads, signals, reload; puts source, pipeline, store and publisher together.

capture thread per device -> monitor (windows, bounded queue) -> worker (scores) -> store + publisher
main thread: signals, watchdog, housekeeping, health.  control thread: requests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from asd_agent import __version__, config, log
from asd_agent.baseline import Baseline, BaselineStore
from asd_agent.capture import SourceStatus
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder, lean_malloc, shared_encoder
from asd_agent.errors import AsdError, UsageError
from asd_agent.scoring.pipeline import Pipeline
from asd_agent.service import clock
from asd_agent.service.capture import CaptureThread
from asd_agent.service.commands import Commands
from asd_agent.service.control import ControlServer, socket_path
from asd_agent.service.machine import Monitor
from asd_agent.service.shadow import Shadow
from asd_agent.service.sink import Sink
from asd_agent.service.systemd import Progress, notify, watchdog_s
from asd_agent.store import Store
from asd_agent.types import AlarmState

TICK_S = 1.0
HEALTH_S = 10.0
MAINTAIN_S = 10.0
HALT_S = 20.0  # for the window that is being scored at the end
log_ = structlog.get_logger()


class Daemon:
    """One per state directory. `run` returns the exit code."""

    def __init__(self, settings: config.Config, path: str) -> None:
        self.settings = settings
        self._path = path
        self._progress = Progress()
        self._wake = threading.Event()  # a signal came
        self._stop = threading.Event()
        self._reload = threading.Event()
        self._work = threading.Event()  # windows may be waiting
        self._began = time.monotonic()
        self._monitors: dict[str, Monitor] = {}
        self._captures: dict[str, CaptureThread] = {}
        self._lock = threading.RLock()  # monitors and captures while a reload changes them
        self._turn = threading.Lock()  # the worker's, while it scores a window
        self._worker = threading.Thread(target=self._score, name="worker", daemon=True)

    def run(self) -> int:
        lean_malloc()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        with Store(self.settings.state_dir, score_days=self.settings.agent.score_days) as self._store:
            commands = Commands(self)
            with contextlib.ExitStack() as ending:  # in reverse: sound first, the broker last
                self._sink = Sink(self.settings, self._store, commands, self._tell)
                ending.callback(self._sink.close)
                ending.callback(self._halt)
                with self._lock:
                    self._monitors = self._make_monitors(self.settings)
                    for monitor in self._monitors.values():
                        monitor.introduce()
                    self._start_captures()
                control = ControlServer(socket_path(self.settings), commands, self.settings.agent.socket_group)
                ending.callback(control.close)
                self._worker.start()
                notify("READY=1")
                log_.info("running", agent=self.settings.agent.id, machines=len(self._monitors), pid=os.getpid())
                self._watch()
                notify("STOPPING=1")
        log_.info("stopped")
        return 0

    def _halt(self) -> None:
        """No more sound, no more windows; the one that is being scored is finished."""
        self._stop.set()
        self._work.set()
        for capture in self._captures.values():
            capture.stop()  # all at once, then wait for each
        for capture in self._captures.values():
            capture.close()
        if self._worker.is_alive():
            self._worker.join(HALT_S)

    # -- machines

    def _tell(self, topic: str, payload: bytes) -> None:
        """A message on a topic of the configuration."""
        for monitor in list(self._monitors.values()):
            mechanism = monitor.machine.mechanism
            if mechanism is not None and mechanism.speed_topic == topic:
                monitor.tell_speed(payload)
            if monitor.machine.operating is not None and monitor.machine.operating.topic == topic:
                monitor.told.tell(payload)

    def monitor(self, machine_id: str) -> Monitor:
        """Raises UsageError that lists what there is."""
        with self._lock:
            if machine_id not in self._monitors:
                known = ", ".join(self._monitors)
                raise UsageError(f"there is no machine {machine_id!r} (there are: {known})")
            return self._monitors[machine_id]

    def _make_monitors(self, settings: config.Config) -> dict[str, Monitor]:
        """New monitors; those of machines whose configuration is unchanged are kept. Raises AsdError."""
        states = self._store.states()
        made = {}
        for machine in settings.machines:
            old = self._monitors.get(machine.id)
            if old is not None and old.machine == machine:
                made[machine.id] = old
                continue
            state = old.alarm_state if old is not None else _remembered(states.get(machine.id, AlarmState()))
            made[machine.id] = Monitor(
                machine,
                settings.state_dir,
                pipelines(machine),
                state,
                self._sink,
                clock.synchronized,
                self._shadow(machine, settings),
            )
        return made

    def _shadow(self, machine: config.Machine, settings: config.Config) -> Shadow | None:
        if machine.shadow is None:
            return None
        return Shadow(machine, BaselineStore(settings.state_dir, machine.id), self._store)

    def _start_captures(self) -> None:
        """One thread per distinct device; those whose listeners are unchanged go on."""
        by_device: dict[str, list[Monitor]] = {}
        for monitor in self._monitors.values():
            by_device.setdefault(monitor.machine.source.device_key(), []).append(monitor)
        for key, capture in list(self._captures.items()):
            if capture.listeners != tuple(by_device.get(key, ())):
                capture.close()
                del self._captures[key]
        for key, monitors in by_device.items():
            if key not in self._captures:
                name = ",".join(m.machine.id for m in monitors)
                self._captures[key] = CaptureThread(
                    name, monitors[0].machine.source, monitors, self._progress, self._work.set
                )
                self._captures[key].start()

    def _reload_config(self) -> None:
        """Take over a changed configuration; a bad one is refused whole and the old one runs on."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            settings = config.load(self._path)
            self._refuse_lasting(settings)
            with self._turn:  # no window may change an alarm between the reading of its state and the swap
                monitors = self._make_monitors(settings)
                self._sink.reload(settings)
                new, gone = self._swap(settings, monitors)
        except AsdError as exc:
            log_.error("reload refused, the old configuration runs on", error=str(exc))
            notify(f"READY=1\nSTATUS=reload refused: {exc}")
            return
        for monitor in new:
            monitor.introduce()
        for machine_id in gone:
            self._sink.forget(machine_id)
        log.configure(settings.agent.log_level)
        log_.info("reloaded", machines=len(monitors))
        notify("READY=1")

    def _refuse_lasting(self, settings: config.Config) -> None:
        """Raises UsageError for a change that only a restart can take over."""
        for key in ("id", "state_dir", "socket", "socket_group", "score_days"):
            if getattr(settings.agent, key) != getattr(self.settings.agent, key):
                raise UsageError(f"{self._path}: agent.{key} cannot change while running: restart the agent")

    def _swap(self, settings: config.Config, monitors: dict[str, Monitor]) -> tuple[list[Monitor], set[str]]:
        """Put the new machines in place; returns those that are new and the ids of those that are gone."""
        with self._lock:
            mqtt_changed = settings.mqtt != self.settings.mqtt
            old, self._monitors, self.settings = self._monitors, monitors, settings
            self._start_captures()
        new = [m for m in monitors.values() if mqtt_changed or m not in old.values()]
        return new, set(old) - set(monitors)

    # -- threads

    def _score(self) -> None:
        """The worker: one window at a time, the machines in turn."""
        while not self._stop.is_set():
            self._progress.touch("worker")
            self._work.clear()
            busy = False
            for monitor in list(self._monitors.values()):
                window = monitor.take()
                if window is None:
                    continue
                busy = True
                self._progress.touch("worker")
                try:
                    with self._turn:
                        monitor.score(window)
                except AsdError as exc:
                    monitor.scoring_error = str(exc)
                    log_.error("window not scored", machine=monitor.machine.id, error=str(exc))
                except Exception as exc:
                    monitor.scoring_error = f"internal error: {exc!r}; see the log"
                    log_.exception("window not scored", machine=monitor.machine.id)
            if not busy:
                self._work.wait(TICK_S)

    def _watch(self) -> None:
        """The main thread until SIGTERM."""
        interval = watchdog_s()
        health_at = maintain_at = 0.0
        available: dict[str, bool] = {}
        while not self._stop.is_set():
            self._wake.wait(min(TICK_S, interval / 4 if interval else TICK_S))
            self._wake.clear()
            if self._reload.is_set():
                self._reload.clear()
                self._reload_config()
            stuck = self._progress.stuck((interval or 60.0) / 2)
            if stuck:
                log_.error("no progress", threads=stuck)
                notify(f"STATUS=no progress: {', '.join(stuck)}")
            elif interval:
                notify("WATCHDOG=1")
            for monitor in list(self._monitors.values()):
                monitor.tick()
            now = time.monotonic()
            before, available = available, self._available()
            if now >= health_at or available != before:  # a source that dies or comes back is told at once
                health_at = now + HEALTH_S
                self._sink.health(self.status())
                notify(f"STATUS={self._words()}")
            if now >= maintain_at:
                maintain_at = now + MAINTAIN_S
                self._store.maintain()

    def _on_signal(self, number: int, _frame: object) -> None:
        (self._reload if number == signal.SIGHUP else self._stop).set()
        self._wake.set()

    # -- status

    def status(self) -> dict[str, Any]:
        """What `asd-agent status` shows; builtins only."""
        with self._lock:
            machines = [self._machine_status(monitor) for monitor in self._monitors.values()]
        return {
            "agent": self.settings.agent.id,
            "version": __version__,
            "utc_s": time.time(),
            "time_synced": clock.synchronized(),
            "uptime_s": time.monotonic() - self._began,
            **self._sink.status(),
            "machines": machines,
        }

    def _machine_status(self, monitor: Monitor) -> dict[str, Any]:
        return monitor.status(self._source_status(monitor))

    def _source_status(self, monitor: Monitor) -> SourceStatus:
        return self._captures[monitor.machine.source.device_key()].status()

    def _available(self) -> dict[str, bool]:
        with self._lock:
            return {name: m.available(self._source_status(m)) for name, m in self._monitors.items()}

    def _words(self) -> str:
        alarms = [m.machine.id for m in self._monitors.values() if m.alarm_state.level != "normal"]
        words = f"{len(self._monitors)} machine(s)"
        return words + (f", alarm: {', '.join(alarms)}" if alarms else ", no alarm")


def _remembered(state: AlarmState) -> AlarmState:
    """The alarm stands; the votes of the windows before an interruption of unknown length are void."""
    return msgspec.structs.replace(state, rising=(), falling=())


def pipelines(machine: config.Machine) -> Callable[[Baseline | None], Pipeline]:
    """A maker of the machine's pipeline; the encoders are opened once and shared. Raises BundleError."""
    encoders: dict[str, Encoder] = {name: shared_encoder(Bundle.load(name)) for name in machine.bundles}
    return lambda baseline: Pipeline(machine, encoders, baseline)
