"""What the demo listens to, and when what happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from asd_agent import config
from asd_agent.config.kinematics import Bearing, Mechanism
from asd_agent.errors import UsageError

WINDOW_S, HOP_S = 2.0, 1.0
# What a person would know of the simulated machine: its motor and the bearing at its drive end.
MOTOR = Mechanism(shaft_hz=24.9, mains_hz=50.0, bearings=[Bearing(name="DE", type="6205")])


@dataclass(frozen=True)
class Plan:
    """Seconds from the moment the daemon listens."""

    calibrate_s: float
    quiet_s: float  # between calibration and fault; the rest of the start-up also comes out of it
    fault_s: float
    recover_s: float  # the longest wait for the alarm to clear

    @property
    def fault_at_s(self) -> float:
        return self.calibrate_s + self.quiet_s

    @property
    def listen_s(self) -> float:
        return self.quiet_s + self.fault_s + self.recover_s


NORMAL = Plan(calibrate_s=45.0, quiet_s=20.0, fault_s=20.0, recover_s=25.0)
FAST = Plan(calibrate_s=30.0, quiet_s=14.0, fault_s=12.0, recover_s=20.0)


def source(text: str, plan: Plan) -> config.Source:
    """ "simulated", "microphone", "microphone:DEVICE", or a path to a recording or a folder of them."""
    if text == "simulated":
        fault = config.Fault(
            kind="bearing", level_db=-14.0, at_s=plan.fault_at_s, until_s=plan.fault_at_s + plan.fault_s
        )
        return config.SimulatedSource(faults=[fault])
    kind, _, device = text.partition(":")
    if kind == "microphone":
        return config.MicrophoneSource(device=device or "default")
    path = Path(text).expanduser()
    if path.is_dir():
        return config.DirectorySource(path=str(path.resolve()), pace="live", loop=True)
    if path.is_file():
        return config.FileSource(path=str(path.resolve()), pace="live", loop=True)
    raise UsageError(f"--source {text!r}: neither simulated nor microphone[:DEVICE] nor a path that exists")


def settings(text: str, plan: Plan, folder: Path, port: int, page_port: int) -> config.Config:
    target = config.Machine(id="machine-1", source=source(text, plan), window_s=WINDOW_S, hop_s=HOP_S)
    if isinstance(target.source, config.SimulatedSource):
        target = msgspec.structs.replace(target, mechanism=MOTOR)
    return config.Config(
        agent=config.Agent(id="demo", state_dir=str(folder / "state"), log_level="warning"),
        mqtt=config.Mqtt(url=f"mqtt://127.0.0.1:{port}"),
        web=config.Web(listen=f"127.0.0.1:{page_port}", live_sound=True),
        machines=[target],
    )
