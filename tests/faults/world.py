"""A broker, a proxy, a publishing process and the reference subscriber; and the check after each fault."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from mosquitto import Mosquitto

from asd_agent.errors import StoreError
from asd_agent.store import Reader
from faults.outcomes import Outcome
from faults.proxy import Proxy
from faults.reference import PATIENCE_S, Reference, waited_s

TESTS = Path(__file__).resolve().parents[1]
SOURCE = Path(__file__).with_name("source.py")
MACHINES = ("m0", "m1", "m2")
GIVE_UP_S = 60.0


class Committed(NamedTuple):
    """What the process said once an event was on disk."""

    id: str
    log_bytes: int
    at_s: float  # monotonic


class Resources(NamedTuple):
    rss_kib: int
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int) -> Resources:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return cls(int(lines["VmRSS"].split()[0]), int(lines["Threads"]), len(os.listdir(f"/proc/{pid}/fd")))


class World:
    def __init__(self, folder: Path, agent: str, rng: random.Random, state_dir: Path | None = None) -> None:
        self.agent, self.rng = agent, rng
        self.state_dir = state_dir or folder / "state"
        self.broker = Mosquitto(folder / "broker", "allow_anonymous true", "max_inflight_messages 100")
        self.broker.start()
        self.proxy = Proxy(self.broker.port, rng)
        self.reference = Reference(self.broker.port, f"reference-{agent}")
        self.committed: list[Committed] = []
        self.answers: list[str] = []
        self.errors = (folder / "errors.log").open("ab")
        self.process: subprocess.Popen[str] | None = None
        self._counted = (0, 0)  # duplicates and conflicts that earlier outcomes told
        self._checked = 0  # committed events before this index have arrived

    def start(self) -> None:
        arguments = [str(self.state_dir), str(self.proxy.port), self.agent, str(self.rng.getrandbits(32))]
        self.process = process = subprocess.Popen(
            [sys.executable, str(SOURCE), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, bufsize=1,
            cwd=TESTS, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.endswith("\n"):
                return  # killed in the middle of the word: it may not be on disk
            words = line.split()
            if words[0] in ("committed", "waiting"):
                self.committed.append(Committed(words[1], int(words[2]), time.monotonic()))
            else:
                self.answers.append(words[0])

    def order(self, word: str, answer: str) -> bool:
        """Tell the process something; whether it has answered."""
        assert self.process is not None
        assert self.process.stdin is not None
        before = len(self.answers)
        try:
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        except OSError:
            return False
        return waited_s(lambda: answer in self.answers[before:], 10.0) is not None

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(20)
        time.sleep(0.05)  # what it said last is still in the pipe

    def outcome(self, kind: str) -> Outcome:
        """Call when the fault is over: waits until all is well again, at the longest a minute."""
        over_s = time.monotonic()
        recovery_s = waited_s(lambda: self._arrived_since(over_s), GIVE_UP_S)
        first = self._checked
        self.order("pause", "paused")
        lost = self._lost(first)
        wrong = self._wrong_states(over_s)
        self.order("go", "going")
        self._checked = len(self.committed)
        before, self._counted = self._counted, (self.reference.duplicates, self.reference.conflicts)
        return Outcome(
            kind,
            events=len(self.committed) - first,
            lost=len(lost),
            duplicates=self._counted[0] - before[0],
            conflicts=self._counted[1] - before[1],
            wrong_states=len(wrong),
            recovery_s=recovery_s,
            stuck=recovery_s is None,
            note="; ".join(wrong),
        )

    def close(self) -> list[str]:
        """End all; what the process said on standard error."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.proxy.close()
        self.reference.close()
        self.broker.stop()
        self.errors.close()
        lines = Path(self.errors.name).read_text(errors="replace").splitlines()
        return [line for line in lines if line.startswith("Traceback")]

    def _arrived_since(self, since_s: float) -> bool:
        fresh = {c.id for c in self.committed[-200:] if c.at_s >= since_s}
        return bool(fresh) and len(self.reference.missing(fresh)) < len(fresh)

    def _on_disk(self) -> set[str]:
        try:
            return {event.id for event in Reader(self.state_dir).events(limit=1_000_000)}
        except StoreError:
            return set()

    def _lost(self, first: int) -> set[str]:
        """Committed events that are not on disk, or have not arrived half a minute later."""
        promised = {c.id for c in self.committed[first:]}
        on_disk = self._on_disk()
        waited_s(lambda: not self.reference.missing(promised | on_disk), PATIENCE_S)
        return (promised - on_disk) | self.reference.missing(promised | on_disk)

    def _wrong_states(self, over_s: float) -> list[str]:
        """Retained states that differ from those on disk, 30 s after the fault at the latest."""
        states = Reader(self.state_dir).states()
        while True:
            told = self.reference.retained(self.agent, MACHINES)
            wrong = [
                f"{machine}: broker {told[machine].get('comment')!r}, disk {states[machine].comment!r}"
                for machine in MACHINES
                if machine in states and told[machine].get("comment") != states[machine].comment
            ]
            if not wrong or time.monotonic() - over_s > PATIENCE_S:
                return wrong
            time.sleep(0.2)
