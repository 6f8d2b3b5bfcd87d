"""A machine that is listened to without a daemon: simulated sound through Machine and Sink into a store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from asd_agent import config
from asd_agent.baseline import Baseline, BaselineStore
from asd_agent.calibration.build import build
from asd_agent.capture import SourceStatus
from asd_agent.capture.simulate import machine_blocks
from asd_agent.publish import Messages
from asd_agent.scoring.pipeline import open_pipeline
from asd_agent.service.active import pipeline_maker
from asd_agent.service.machine import Machine
from asd_agent.service.shadow import Shadow
from asd_agent.service.sink import Sink
from asd_agent.service.status import MachineStatus, SinkStatus
from asd_agent.store import Store
from asd_agent.types import AlarmState, Block
from asd_agent.windowing.windower import Windower

RATE = 16_000
DELIVERING = SourceStatus(available=True, detail="delivering")
FAULT = config.Fault(kind="bearing", level_db=0)


def sound(seconds: float, *faults: config.Fault, seed: int = 0) -> np.ndarray:
    """[frames, 1]"""
    source = config.SimulatedSource(seed=seed, duration_s=seconds, pace="fast", faults=list(faults))
    return np.concatenate([block.samples for block in machine_blocks(source)])


def calibrated(machine: config.Machine, samples: np.ndarray, version: str = "20260101T000000Z") -> Baseline:
    pipeline = open_pipeline(machine, None)
    windower = Windower(RATE, machine.window_s, machine.hop_s, pipeline.rates)
    windows = [w for block in blocks(samples, 1e9) for w in windower.push(block, 0)]
    return build(machine, [pipeline.describe(w) for w in windows], pipeline, version)


def blocks(samples: np.ndarray, utc_s: float, start_frame: int = 0) -> list[Block]:
    """[frames, channels] -> blocks of half a second."""
    size = RATE // 2
    return [
        Block(samples[at : at + size], RATE, start_frame + at, utc_s + at / RATE, time.monotonic())
        for at in range(0, len(samples), size)
    ]


def status_of(monitor: Machine) -> MachineStatus:
    """While its source delivers, without a broker."""
    nothing = SinkStatus(mqtt=None, outbox=0, scores_dropped=0, findings=())
    return monitor.status(DELIVERING, nothing, Messages("a", "asd", lambda: True))


class Listening:
    """One machine; `hear` sound, one piece after the other, as if it were live."""

    def __init__(self, settings: config.Config, store: Store, utc_s: float) -> None:
        (self.machine,) = settings.machines
        self.settings, self.store, self.utc_s = settings, store, utc_s
        self.outlet = Sink(settings, store, lambda verb, args: None, lambda topic, payload: None)
        self.restart()

    def restart(self) -> None:
        """As after the daemon's end and start."""
        states = self.store.states()
        state = msgspec.structs.replace(states.get(self.machine.id, AlarmState()), rising=(), falling=())
        folder = self.settings.state_dir
        shadow = Shadow(self.machine, BaselineStore(folder, self.machine.id), self.store)
        self.monitor = Machine(
            self.machine, folder, pipeline_maker(self.machine), state, self.outlet, lambda: True, shadow
        )
        self.monitor.active.introduce()
        self.frame = 0

    def hear(self, samples: np.ndarray) -> None:
        for block in blocks(samples, self.utc_s, self.frame):
            self.monitor.offer(block)
            while (window := self.monitor.windows.take()) is not None:
                self.monitor.score(window)
        self.frame += len(samples)
        self.utc_s += len(samples) / RATE

    def wait(self, seconds: float) -> None:
        """Without sound."""
        self.utc_s += seconds


@contextlib.contextmanager
def listening(
    folder: Path, machine: config.Machine, baseline: Baseline, utc_s: float, make: Callable[..., Listening] = Listening
) -> Iterator[Listening]:
    settings = config.Config(agent=config.Agent(id="a", state_dir=str(folder)), machines=[machine])
    baselines = BaselineStore(folder, machine.id)
    baselines.write(baseline)
    baselines.promote()
    with Store(folder) as store:
        item = make(settings, store, utc_s)
        yield item
        item.outlet.close()
