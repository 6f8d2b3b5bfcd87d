"""One daemon a state directory: an exclusive lock on a file in it, which dies with its process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from asd_agent.errors import StoreError


class StateLock:
    """Held from construction until `release`. Raises StoreError: held by another, or not writable."""

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / "agent.lock"
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as exc:
            raise StoreError(
                f"{state_dir}: the state directory cannot be written ({exc.strerror}): "
                "give the agent's user write access, or set agent.state_dir"
            ) from exc
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as exc:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise StoreError(
                f"{state_dir}: in use by another asd-agent (pid {holder}): stop it, or set another agent.state_dir"
            ) from exc
        except OSError:
            pass  # no room for the number of our process: the lock itself is held

    def release(self) -> None:
        os.close(self._fd)
