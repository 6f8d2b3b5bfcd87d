"""Faults of the connection, of the broker and of the publishing process."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from faults.outcomes import Outcome
from faults.proxy import LASTING, MOMENTARY
from faults.world import Resources, World

BROKER = ("broker: restarts", "broker: killed", "broker: stands still")
PROCESS = (
    "agent: killed",
    "agent: killed while it starts",
    "agent: killed while the broker is away",
    "agent: told to end",
    "agent: stands still",
    "agent: killed in the middle of a publish",
)


class NetworkLane:
    """The connection is disturbed, again and again, under one process that lives all the time."""

    kinds = (*(f"network: {fault}" for fault in (*LASTING, *MOMENTARY)), *BROKER)

    def __init__(self, folder: Path, name: str, rng: random.Random) -> None:
        self._rng = rng
        self.world = World(folder, name, rng)
        self.world.start()
        self.world.outcome("start")

    def inject(self, kind: str) -> Outcome:
        area, fault = kind.split(": ", 1)
        if area == "broker":
            self._disturb_broker(fault)
        else:
            self.world.proxy.begin(fault)
            time.sleep(self._rng.uniform(0.2, 3.0) if fault in LASTING else self._rng.uniform(0.0, 0.5))
            self.world.proxy.end()
        return self.world.outcome(kind)

    @property
    def pid(self) -> int:
        assert self.world.process is not None
        return self.world.process.pid

    def resources(self) -> Resources:
        return Resources.of(self.pid)

    def close(self) -> list[str]:
        return self.world.close()

    def _disturb_broker(self, fault: str) -> None:
        broker, proxy = self.world.broker, self.world.proxy
        if fault == "stands still":
            broker.signal(signal.SIGSTOP)
            time.sleep(self._rng.uniform(0.5, 3.0))
            broker.signal(signal.SIGCONT)
            return
        proxy.begin("refuse")  # the reference shall be there before the agent, for what the broker has forgotten
        time.sleep(0.1)
        if fault == "killed":
            broker.kill()
        else:
            broker.stop()
        time.sleep(self._rng.uniform(0.1, 2.0))
        broker.start()
        self.world.reference.resubscribed()
        proxy.end()


class ProcessLane:
    """The process is killed and started again."""

    kinds = PROCESS

    def __init__(self, folder: Path, name: str, rng: random.Random) -> None:
        self._rng = rng
        self.world = World(folder, name, rng)
        self.world.start()
        self.world.outcome("start")

    def inject(self, kind: str) -> Outcome:
        world, fault = self.world, kind.split(": ", 1)[1]
        time.sleep(self._rng.uniform(0.0, 0.6))
        if fault == "stands still":
            assert world.process is not None
            world.process.send_signal(signal.SIGSTOP)
            time.sleep(self._rng.uniform(0.2, 3.0))
            world.process.send_signal(signal.SIGCONT)
            return world.outcome(kind)
        if fault == "killed while the broker is away":
            world.proxy.begin("refuse")
            time.sleep(self._rng.uniform(0.1, 1.0))
        elif fault == "killed in the middle of a publish":
            world.proxy.begin(self._rng.choice(("trickle", "swallow what the broker sends")))
            time.sleep(self._rng.uniform(0.05, 0.5))
        world.kill(signal.SIGTERM if fault == "told to end" else signal.SIGKILL)
        world.proxy.end()
        world.start()
        if fault == "killed while it starts":
            time.sleep(self._rng.uniform(0.0, 1.5))
            world.kill()
            world.start()
        return world.outcome(kind)

    def resources(self) -> None:
        """Another process after every fault."""

    def close(self) -> list[str]:
        return self.world.close()
