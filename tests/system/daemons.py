"""A real daemon in a process of its own, on a source that the test commands, with a baseline from the start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from mosquitto import wait_for

from asd_agent import config
from asd_agent.capture.simulate import machine_blocks
from asd_agent.errors import AsdError
from asd_agent.service.control import ask
from asd_agent.store import Reader
from asd_agent.types import AlarmEvent

PLAYER = Path(__file__).with_name("player.py")
RATE = 16_000
SPEED = 4.0
NORMAL_S, FAULTY_S = 30, 10


def machine_sound(seconds: float, *faults: config.Fault, seed: int = 0) -> np.ndarray:
    source = config.SimulatedSource(seed=seed, duration_s=seconds, pace="fast", faults=list(faults))
    return np.concatenate([block.samples for block in machine_blocks(source)])[:, 0]


def asd(*arguments: object, timeout_s: float = 60.0, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "asd_agent", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, **more)


class Template:
    """Sounds and a baseline, made once and copied for each test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "sound").mkdir(parents=True)
        normal = machine_sound(NORMAL_S)
        faulty = machine_sound(FAULTY_S, config.Fault(kind="bearing", level_db=0), seed=1)
        self._save("normal", normal)
        self._save("faulty", faulty)
        self._save("silent", np.zeros(RATE * 5))
        n = min(len(normal), len(faulty))
        self._save("left_faulty", np.column_stack([faulty[:n], normal[:n]]))
        self._save("both_normal", np.column_stack([normal, normal]))
        soundfile.write(folder / "normal.wav", normal, RATE)
        self.configure(folder / "agent.yaml", [machine(folder)], folder / "state")
        done = asd("calibrate", "-c", folder / "agent.yaml", "m", "--from", folder / "normal.wav", "--promote")
        assert done.returncode == 0, done.stderr

    def _save(self, name: str, samples: np.ndarray) -> None:
        (self.folder / "sound" / f"{name}.raw").write_bytes((samples * 32767).astype("<i2").tobytes())

    @staticmethod
    def configure(path: Path, machines: list[dict[str, Any]], state_dir: Path, **sections: Any) -> None:
        agent = {"id": "a", "state_dir": str(state_dir)} | sections.pop("agent", {})
        text = yaml.safe_dump({"agent": agent, "machines": machines, **sections})
        part = path.with_suffix(".part")
        part.write_text(text)
        part.rename(path)


def machine(folder: Path, name: str = "m", channel: int = 0, channels: int = 1, **more: Any) -> dict[str, Any]:
    """A machine that listens to the player in `folder`."""
    argv = [sys.executable, str(PLAYER), str(folder / "sound"), str(2 * channels), str(RATE), str(SPEED)]
    source = {"kind": "command", "argv": argv, "rate_hz": RATE, "channels": channels, "channel": channel}
    return {"id": name, "source": source, "window_s": 1.0, "hop_s": 0.5, **more}


class Site:
    """A folder with configuration and state, and the daemon that runs on it."""

    def __init__(self, folder: Path, template: Template) -> None:
        self.folder = folder
        self.path, self.state_dir, self.log = folder / "agent.yaml", folder / "state", folder / "daemon.log"
        self.template = template
        (folder / "sound").mkdir()
        for sound in (template.folder / "sound").glob("*.raw"):
            (folder / "sound" / sound.name).symlink_to(sound)
        shutil.copytree(template.folder / "state", self.state_dir)
        self.play("normal")
        self.configure()
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}  # of the daemon, beside ours

    def configure(self, *machines: dict[str, Any], **sections: Any) -> None:
        self.template.configure(self.path, list(machines) or [machine(self.folder)], self.state_dir, **sections)

    def copy_baseline(self, name: str) -> None:
        """The machine of that name begins with the template's baseline too."""
        shutil.copytree(self.template.folder / "state" / "machines" / "m", self.state_dir / "machines" / name)

    def play(self, mode: str) -> None:
        part = self.folder / "sound" / "part"
        part.write_text(mode)
        part.rename(self.folder / "sound" / "mode")

    @property
    def settings(self) -> config.Config:
        return config.load(self.path)

    def start(self) -> None:
        """Until the daemon answers."""
        self.launch()
        wait_for(self._answers, "the daemon answers")

    def launch(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "asd_agent", "run", "-c", str(self.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,
            )

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the daemon ended: {self.said}"
        with suppress(AsdError):
            self.ask("status")
            return True
        return False

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(40)
        self.process = None
        return code

    def kill(self) -> None:
        """As a power cut does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.process = None

    def reload(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    # -- what is to be seen

    def ask(self, verb: str, **args: Any) -> Any:
        return ask(self.settings, verb, **args)

    def cli(self, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
        """`cli("alarms", "ack", "m")` = asd-agent alarms ack -c agent.yaml m."""
        words = 2 if arguments[0] in ("alarms", "baseline") else 1
        return asd(*arguments[:words], "-c", self.path, *arguments[words:], **more)

    def status(self, name: str = "m") -> dict[str, Any]:
        found: dict[str, Any] = next(m for m in self.ask("status")["machines"] if m["machine"] == name)
        return found

    def until(self, name: str = "m", patience_s: float = 40.0, **wanted: Any) -> dict[str, Any]:
        """Wait for `level` of the alarm, `state` of the newest window, status of the `chain`, `available` source."""

        def reached() -> bool:
            status = self.status(name)
            values = {
                "level": status["alarm"]["level"],
                "chain": status["health"]["status"],
                "available": status["health"]["source_available"],
                "state": (status["score"] or {}).get("state"),
            }
            return all(values[key] == value for key, value in wanted.items())

        wait_for(reached, f"{name} is {wanted}", patience_s)
        return self.status(name)

    def until_reason(self, words: str, name: str = "m") -> str:
        """Wait until the health of the machine's chain gives this reason; all of its words."""

        def found() -> list[str]:
            return [reason for reason in self.status(name)["health"]["reasons"] if words in reason]

        wait_for(lambda: bool(found()), f"health of {name} says {words!r}", 40.0)
        return found()[0]

    def more_windows(self, count: int = 3, name: str = "m") -> None:
        """Wait until so many more have been scored."""
        goal = self.status(name)["health"]["windows_scored"] + count
        wait_for(lambda: self.status(name)["health"]["windows_scored"] >= goal, f"{count} more windows of {name}")

    @property
    def reader(self) -> Reader:
        return Reader(self.state_dir)

    def events(self) -> list[AlarmEvent]:
        return self.reader.events(limit=10_000)

    def kinds(self) -> list[str]:
        return [event.kind.value for event in self.events()]

    @property
    def said(self) -> str:
        return self.log.read_text()

    def children(self) -> list[int]:
        """Processes that the daemon started."""
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def children_readable() -> bool:
    return Path(f"/proc/self/task/{os.getpid()}/children").exists()
