"""Whether the wall clock is known to be right: a host without a battery starts in the past."""

from __future__ import annotations

import ctypes
import threading
import time
from pathlib import Path

import structlog

log = structlog.get_logger()
_TIMESYNCD = Path("/run/systemd/timesync/synchronized")  # exists once systemd-timesyncd has set the clock
_STA_UNSYNC = 0x40  # <linux/timex.h>
_TIME_ERROR = 5
_STATUS_OFFSET = 5 * ctypes.sizeof(ctypes.c_long)  # in struct timex, behind modes, offset, freq, maxerror, esterror
_RECHECK_S = {True: 600.0, False: 30.0}

_lock = threading.Lock()
_known: tuple[float, bool] | None = None  # when asked (monotonic), the answer


_BEGAN = time.time(), time.monotonic()  # of this process
JUMP_S = 30.0  # what a daemon that slews the clock never does within a second


def settled_utc_s() -> float:
    """The wall time by which old records are deleted: a clock that is not synchronised must not run ahead by a jump."""
    if synchronized():
        return time.time()
    return min(time.time(), _BEGAN[0] + time.monotonic() - _BEGAN[1])


class Jumps:
    """Sees that the wall clock has been set. Of one thread."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def seen(self) -> float:
        """By how many seconds since the last question; 0 where it only ran, or was slewed."""
        offset_s = time.time() - time.monotonic()
        jump_s, self._offset_s = offset_s - self._offset_s, offset_s
        if abs(jump_s) < JUMP_S:
            return 0.0
        log.warning("the clock has been set", seconds=round(jump_s))
        return jump_s


def synchronized() -> bool:
    """Cheap: asked anew every 30 s, every 10 minutes once it is true. What cannot be known is False."""
    global _known
    with _lock:
        if _known is None or time.monotonic() - _known[0] >= _RECHECK_S[_known[1]]:
            _known = time.monotonic(), _ask()
        return _known[1]


def _ask() -> bool:
    if _TIMESYNCD.exists():
        return True
    kernel = _kernel()
    return _timedatectl() if kernel is None else kernel


def _kernel() -> bool | None:
    """adjtimex(2), which every NTP and PTP daemon keeps up to date; None where a sandbox forbids it."""
    buffer = ctypes.create_string_buffer(512)  # struct timex is 208 bytes; modes = 0: only read
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    status = ctypes.c_int.from_buffer(buffer, _STATUS_OFFSET).value
    return state != _TIME_ERROR and not status & _STA_UNSYNC


def _timedatectl() -> bool:
    """The same answer through systemd, for units with ProtectClock=yes."""
    import shutil
    import subprocess

    program = shutil.which("timedatectl")
    if program is None:
        return False
    try:
        answer = subprocess.run(
            [program, "show", "--property=NTPSynchronized", "--value"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.stdout.strip() == b"yes"
