"""The daemon: threads, signals, reload; puts source, pipeline, store and publisher together.

capture thread per device -> machine (windows, bounded queue) -> worker (scores) -> store + publisher
main thread: signals, watchdog, housekeeping, health.  control threads: requests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field

import structlog

from asd_agent import __version__, config, log
from asd_agent.baseline import BaselineStore
from asd_agent.decide.alarm import without_votes
from asd_agent.errors import AsdError, UsageError
from asd_agent.memory import lean_malloc
from asd_agent.service import clock
from asd_agent.service.active import pipeline_maker
from asd_agent.service.captures import Captures
from asd_agent.service.clip_request import ClipChunk, ClipRequest
from asd_agent.service.commands import Commands
from asd_agent.service.control import ControlServer, socket_path
from asd_agent.service.install import Installer
from asd_agent.service.machine import Machine
from asd_agent.service.shadow import Shadow
from asd_agent.service.sink import Sink
from asd_agent.service.status import AgentStatus
from asd_agent.service.systemd import Progress, notify, watchdog_s
from asd_agent.service.worker import Worker
from asd_agent.store import Store
from asd_agent.types import AlarmState, Level, rfc3339

TICK_S = 1.0
HEALTH_S = 10.0
MAINTAIN_S = 10.0
RELOAD_WAIT_S = 0.5
log_ = structlog.get_logger()


class Daemon:
    """One per state directory. `run` returns the exit code."""

    def __init__(self, settings: config.Config, path: str) -> None:
        self._path = path
        self._progress = Progress()
        self._wake = threading.Event()  # a signal came
        self._stop = threading.Event()
        self._reload = threading.Event()
        self._began = time.monotonic()
        self.changing = threading.RLock()  # held by a command that changes something, and by a reload: one at a time
        self._lock = threading.RLock()  # of the two below, while a reload changes them
        self._machines: dict[str, Machine] = {}
        self.settings = settings
        self.installer = Installer(settings.state_dir)
        self._worker = Worker(lambda: list(self._machines.values()), self._progress)
        self._captures = Captures(self._progress, self._worker.wake)

    def run(self) -> int:
        lean_malloc()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        with Store(self.settings.state_dir, score_days=self.settings.agent.score_days) as self._store:
            commands = Commands(self)
            with contextlib.ExitStack() as ending:  # in reverse: sound first, the broker last
                self._sink = Sink(self.settings, self._store, commands, self._on_message)
                ending.callback(self._sink.close)
                ending.callback(self._halt)
                with self._lock:
                    self._machines = self._make_machines(self.settings)
                    self._sink.forget_strangers(self._machines)
                    for machine in self._machines.values():
                        machine.active.introduce()
                    self._captures.follow(self._machines.values())
                control = ControlServer(socket_path(self.settings), commands, self.settings.agent.socket_group)
                ending.callback(control.close)
                self._worker.start()
                notify("READY=1")
                log_.info("running", agent=self.settings.agent.id, machines=len(self._machines), pid=os.getpid())
                self._watch()
                notify("STOPPING=1")
        log_.info("stopped")
        return 0

    def _halt(self) -> None:
        """No more sound, no more windows; the one that is being scored is finished."""
        self._stop.set()
        self._captures.close()
        self._worker.close()
        for machine in self._machines.values():
            machine.active.keep()

    # -- machines

    def clip(self, request: ClipRequest) -> ClipChunk:
        """A part of the clip of an alarm. Raises AsdError."""
        return self._sink.clip(request)

    def machine(self, machine_id: str) -> Machine:
        """Raises UsageError that lists what there is."""
        with self._lock:
            if machine_id not in self._machines:
                known = ", ".join(self._machines)
                raise UsageError(f"there is no machine {machine_id!r} (there are: {known})")
            return self._machines[machine_id]

    def _on_message(self, topic: str, payload: bytes) -> None:
        """A message on a topic of the configuration."""
        for machine in list(self._machines.values()):
            machine.reported.receive(topic, payload)

    def _make_machines(self, settings: config.Config) -> dict[str, Machine]:
        """New machines; those whose configuration is unchanged are kept. Raises AsdError."""
        states = self._store.states()
        made = {}
        for machine in settings.machines:
            old = self._machines.get(machine.id)
            if old is not None and old.settings == machine:
                made[machine.id] = old
                continue
            if old is not None:
                old.active.keep()
            stored = without_votes(states.get(machine.id, AlarmState(changed_utc_s=time.time())))
            made[machine.id] = Machine(
                machine,
                settings.state_dir,
                pipeline_maker(machine),
                old.active.alarm_state if old is not None else stored,
                self._sink,
                clock.synchronized,
                _shadow(machine, settings, self._store),
            )
        return made

    def _reload_config(self) -> None:
        """Take over a changed configuration; a bad one is refused whole and the old one runs on."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            settings = config.load(self._path)
            self._refuse_lasting(settings)
            # No window changes an alarm between the reading of its state and the swap.
            with self._worker.between_windows:
                machines = self._make_machines(settings)
                self._sink.reload(settings)
                new, gone = self._swap(settings, machines)
        except AsdError as exc:
            log_.error("reload refused, the old configuration runs on", error=str(exc))
            notify(f"READY=1\nSTATUS=reload refused: {exc}")
            return
        for machine in new:
            machine.active.introduce()
        for machine_id in gone:
            self._sink.forget(machine_id)
        log.configure(settings.agent.log_level)
        log_.info("reloaded", machines=len(machines))
        notify("READY=1")

    def _refuse_lasting(self, settings: config.Config) -> None:
        """Raises UsageError for a change that only a restart can take over."""
        for key in ("id", "state_dir", "socket", "socket_group", "score_days"):
            if getattr(settings.agent, key) != getattr(self.settings.agent, key):
                raise UsageError(f"{self._path}: agent.{key} cannot change while running: restart the agent")

    def _swap(self, settings: config.Config, machines: dict[str, Machine]) -> tuple[list[Machine], set[str]]:
        """Put the new machines in place; returns those that are new and the ids of those that are gone."""
        with self._lock:
            mqtt_changed = settings.mqtt != self.settings.mqtt
            old, self._machines, self.settings = self._machines, machines, settings
            self._captures.follow(machines.values())
        new = [m for m in machines.values() if mqtt_changed or m not in old.values()]
        return new, set(old) - set(machines)

    # -- the main thread

    def _watch(self) -> None:
        """Rounds until SIGTERM. A round that breaks is logged and tried again: the main thread never ends by itself."""
        interval = watchdog_s()
        due = _Due()
        while not self._stop.is_set():
            self._wake.wait(min(TICK_S, interval / 4 if interval else TICK_S))
            self._wake.clear()
            try:
                self._round(interval, due)
            except Exception:
                log_.exception("round of the main thread failed, it is repeated")

    def _round(self, interval: float | None, due: _Due) -> None:
        # A command that takes long (a calibration is fitted) must not hold up the watchdog: the next round tries again.
        if self._reload.is_set() and self.changing.acquire(timeout=RELOAD_WAIT_S):
            try:
                self._reload.clear()
                self._reload_config()
            finally:
                self.changing.release()
        stuck = self._progress.stuck((interval or 60.0) / 2)
        if stuck:
            log_.error("no progress", threads=stuck)
            notify(f"STATUS=no progress: {', '.join(stuck)}")
        elif interval:
            notify("WATCHDOG=1")
        jump_s = due.jumps.seen()
        for machine in list(self._machines.values()):
            machine.tick(jump_s)
        self._sink.tick()
        now = time.monotonic()
        before, due.available = due.available, self._available()
        if now >= due.health_s or due.available != before:  # a source that dies or comes back is reported at once
            due.health_s = now + HEALTH_S
            self._sink.health(self.status())
            notify(f"STATUS={_words(self._machines.values())}")
        if now >= due.maintain_s:
            due.maintain_s = now + MAINTAIN_S
            self._store.maintain(clock.settled_utc_s())

    def _on_signal(self, number: int, _frame: object) -> None:
        (self._reload if number == signal.SIGHUP else self._stop).set()
        self._wake.set()

    # -- status

    def status(self) -> AgentStatus:
        """What `asd-agent status` and the page show."""
        sink = self._sink.status()
        with self._lock:
            machines = [
                machine.status(self._captures.status(machine), sink, *self._sink.said_of(machine))
                for machine in self._machines.values()
            ]
        return AgentStatus(
            agent=self.settings.agent.id,
            version=__version__,
            time=rfc3339(time.time()),
            time_synced=clock.synchronized(),
            uptime_s=time.monotonic() - self._began,
            sink=sink,
            machines=tuple(machines),
        )

    def _available(self) -> dict[str, bool]:
        with self._lock:
            return {name: m.available(self._captures.status(m)) for name, m in self._machines.items()}


def _words(machines: Collection[Machine]) -> str:
    """For `systemctl status`."""
    alarms = [m.id for m in machines if m.active.alarm_state.level is not Level.NORMAL]
    return f"{len(machines)} machine(s)" + (f", alarm: {', '.join(alarms)}" if alarms else ", no alarm")


def _shadow(machine: config.Machine, settings: config.Config, store: Store) -> Shadow | None:
    if machine.shadow is None:
        return None
    return Shadow(machine, BaselineStore(settings.state_dir, machine.id), store)


@dataclass
class _Due:
    """When the main thread does what it does not do in every round (monotonic)."""

    health_s: float = 0.0
    maintain_s: float = 0.0
    available: dict[str, bool] = field(default_factory=dict)  # as last published
    jumps: clock.Jumps = field(default_factory=clock.Jumps)
