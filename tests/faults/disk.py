"""A disk that fills up, becomes read-only, or has no room for another file; needs root, for a small disk."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

from faults.outcomes import Outcome
from faults.world import World

SIZE_MB = 40
KINDS = ("disk: full", "disk: full to the last byte and the reserve", "disk: read-only", "disk: nearly full")


class NoSmallDisk(Exception):  # noqa: N818 - a state of the machine
    """Nothing may be mounted here."""


class DiskLane:
    kinds = KINDS

    def __init__(self, folder: Path, name: str, rng: random.Random) -> None:
        self._rng, self._disk = rng, folder / "disk"
        self._disk.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(self._disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            raise NoSmallDisk("may not mount a small file system here (needs root)")
        self.world = World(folder, name, rng, state_dir=self._disk / "state")
        self.world.start()
        self.world.outcome("start")

    def inject(self, kind: str) -> Outcome:
        fault = kind.split(": ", 1)[1]
        if fault == "read-only":
            # Open files stay writable on tmpfs after a lazy change, so the change is refused while they are open.
            done = subprocess.run(
                ["mount", "-o", "remount,ro", str(self._disk)], capture_output=True, check=False
            ).returncode
            if done != 0:
                self.world.kill()
                subprocess.run(["mount", "-o", "remount,ro", str(self._disk)], check=True)
                self.world.start()  # it ends with one line: there is nowhere to write
                time.sleep(2.0)
                subprocess.run(["mount", "-o", "remount,rw", str(self._disk)], check=True)
                self.world.kill()
                self.world.start()
                return self.world.outcome(kind)
            time.sleep(self._rng.uniform(0.3, 2.0))
            subprocess.run(["mount", "-o", "remount,rw", str(self._disk)], check=True)
            return self.world.outcome(kind)
        self._fill(spare=512 << 10 if fault == "nearly full" else 0)
        time.sleep(self._rng.uniform(0.3, 2.0))
        if fault.endswith("reserve"):
            self._fill(spare=0)  # what the ballast gave back is taken too
            time.sleep(self._rng.uniform(0.3, 1.0))
        (self._disk / "other").unlink()
        return self.world.outcome(kind)

    def resources(self) -> None:
        """Looked at in the network lane."""

    def close(self) -> list[str]:
        said = self.world.close()
        subprocess.run(["umount", "-l", str(self._disk)], check=False)
        return said

    def _fill(self, spare: int) -> None:
        with (self._disk / "other").open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while _free(self._disk) > spare:
                        file.write(b"\0" * min(size, max(_free(self._disk) - spare, 1)))
                except OSError:
                    pass


def _free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
