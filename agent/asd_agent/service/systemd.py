"""systemd's notification protocol (sd_notify(3)) and the watchdog, gated on the progress of the pipeline."""

from __future__ import annotations

import os
import socket
import threading
import time


def notify(message: str) -> None:
    """Send e.g. "READY=1" or "STATUS=..."; does nothing when systemd is not there."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # abstract namespace
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(message.encode(), address)
        except OSError:
            pass  # a lost status line must not stop the listening


def watchdog_s() -> float | None:
    """The interval systemd demands, or None when this process is not watched."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    micros = os.environ.get("WATCHDOG_USEC", "")
    return int(micros) / 1e6 if micros.isdigit() and int(micros) > 0 else None


class Progress:
    """Every thread that must move touches its name; the watchdog is fed only while all of them did.

    Absent sound is no lack of progress: a capture thread touches after every read that returned, with or
    without a block. A step that hangs, a store that blocks, a thread that died: those are.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._touched: dict[str, float] = {}

    def touch(self, name: str) -> None:
        with self._lock:
            self._touched[name] = time.monotonic()

    def forget(self, name: str) -> None:
        with self._lock:
            self._touched.pop(name, None)

    def stuck(self, limit_s: float) -> list[str]:
        """Names that have not moved for `limit_s`."""
        now = time.monotonic()
        with self._lock:
            return sorted(n for n, t in self._touched.items() if now - t > limit_s)
