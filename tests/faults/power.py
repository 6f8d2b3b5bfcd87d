"""Power cuts: the state directory as it was at a moment, with and without the last writes that nobody had synced."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

from asd_agent.store import Store
from faults.outcomes import Outcome
from faults.world import World

KINDS = (
    "power cut: all writes are there",
    "power cut: unsynced writes are missing",
    "power cut: unsynced writes are torn",
    "power cut: shared memory file is gone",
    "power cut: last record of the journal is torn",
    "power cut: journal is gone",
)


class PowerLane:
    kinds = KINDS

    def __init__(self, folder: Path, name: str, rng: random.Random) -> None:
        self._rng, self._folder = rng, folder
        self.world = World(folder, name, rng)
        self.world.start()
        self.world.outcome("start")

    def inject(self, kind: str) -> Outcome:
        world, copy = self.world, self._folder / "copy"
        time.sleep(self._rng.uniform(0.0, 1.0))
        assert world.process is not None
        world.process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        promised = list(world.committed)
        shutil.copytree(world.state_dir, copy)
        world.process.send_signal(signal.SIGCONT)
        self._forget_unsynced(kind.split(": ", 1)[1], copy, promised[-1].log_bytes)
        began_s = time.monotonic()
        with Store(copy) as store:
            opened_s = time.monotonic() - began_s
            found = [event.id for event in store.events(limit=1_000_000)]
            lost = {c.id for c in promised} - set(found)
            twice = len(found) - len(set(found))
            states = store.states()
            newest = {event.machine: event.id for event in store.events(limit=1_000_000)}
            wrong = [m for m, event_id in newest.items() if states[m].comment != event_id]
            damaged = store.health().findings
        shutil.rmtree(copy)
        return Outcome(
            kind, events=len(promised), lost=len(lost), conflicts=twice, wrong_states=len(wrong),
            recovery_s=opened_s, note="; ".join((*wrong, *damaged)),
        )  # fmt: skip

    def resources(self) -> None:
        """The copies are opened in this process."""

    def close(self) -> list[str]:
        return self.world.close()

    def _forget_unsynced(self, how: str, copy: Path, log_bytes: int) -> None:
        log, journal = copy / "agent.db-wal", copy / "unsent.journal"
        if how == "shared memory file is gone":
            (copy / "agent.db-shm").unlink(missing_ok=True)
        elif how == "journal is gone":
            journal.unlink(missing_ok=True)
        elif how == "last record of the journal is torn":
            # Something was being appended: its head is there, its end is not.
            content = journal.read_bytes().rstrip(b"\0")
            journal.write_bytes(content + b"aJ1\n" + self._rng.randbytes(self._rng.randrange(3, 200)))
        elif how.startswith("unsynced") and log.exists():
            end = used(log)
            if end > log_bytes > 0 and how.endswith("missing"):
                with log.open("r+b") as file:
                    file.seek(log_bytes)
                    file.write(b"\0" * (end - log_bytes))
            elif end > log_bytes > 0:
                with log.open("r+b") as file:
                    file.seek(self._rng.randrange(log_bytes, end))
                    file.write(os.urandom(self._rng.randrange(1, 5000)))


def used(log: Path) -> int:
    """Bytes of the log without the zeros at its end."""
    return len(log.read_bytes().rstrip(b"\0"))
