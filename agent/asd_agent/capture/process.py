"""One child process: its output without blocking, its last words, its end."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TETHER = Path(__file__).with_name("tether.py")
PIPE_BYTES = 1 << 20  # some seconds of sound: a busy parent must not stall the card
READ_BYTES = 1 << 18
WORDS_BYTES = 4096  # of stderr are kept
LINE_CHARS = 300
F_SETPIPE_SZ = 1031


class Child:
    """A program in a session of its own, tied to the life of this thread (see tether.py)."""

    def __init__(self, argv: Sequence[str]) -> None:
        tether = [sys.executable, "-I", "-S", str(TETHER), str(os.getpid())]
        self._process = subprocess.Popen(
            [*tether, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out, self._err = self._process.stdout.fileno(), self._process.stderr.fileno()
        self._words = bytearray()
        self._poll = select.poll()
        for fd in (self._out, self._err):
            os.set_blocking(fd, False)
            self._poll.register(fd, select.POLLIN)
        try:
            fcntl.fcntl(self._out, F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # the system's limit is lower; the default will do

    @property
    def pid(self) -> int:
        return self._process.pid

    def read(self, timeout_s: float) -> bytes | None:
        """Bytes of standard output; b"" = it has closed it; None = nothing within the time."""
        ready = [fd for fd, _ in self._poll.poll(max(0.0, timeout_s) * 1000)]
        if self._err in ready and not self._listen():
            self._poll.unregister(self._err)
        if self._out not in ready:
            return None
        return os.read(self._out, READ_BYTES)

    def last_words(self) -> str:
        """The last line on stderr, without credentials."""
        lines = [line.strip() for line in self._words.decode(errors="replace").splitlines() if line.strip()]
        text = "".join(c if c.isprintable() else " " for c in lines[-1]) if lines else ""
        return re.sub(r"://[^/\s@]+@", "://***@", text)[:LINE_CHARS]

    def end(self, grace_s: float = 0.0) -> str:
        """End it and all it started: it may end by itself within `grace_s`, then SIGKILL. Says how it ended.

        Returns without waiting long for a process that the kernel holds (a hung driver); see `reap`.
        """
        by_itself = self._exited_within(grace_s)
        self._signal(signal.SIGKILL)  # before it is reaped: until then its group's number is its own
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            pass
        for _ in range(16):
            if not self._listen():
                break
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()
        how = f"ended with exit code {self._process.returncode}" if by_itself else "killed"
        words = self.last_words()
        return f"{words} ({how})" if words else how

    @property
    def ended_well(self) -> bool:
        """It ended by itself with exit code 0."""
        return self._process.returncode == 0

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def reap(self) -> bool:
        """Whether it is gone; a killed process can hang in the kernel for a while."""
        return self._process.poll() is not None

    def _exited_within(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    return True
            except ChildProcessError:
                return True  # somebody else has reaped it
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)  # it leads its own group (start_new_session)
        except ProcessLookupError:
            pass

    def _listen(self) -> bool:
        """Take in some stderr; False = nothing there (now, or ever again)."""
        try:
            data = os.read(self._err, READ_BYTES)
        except BlockingIOError:
            return False
        self._words += data
        del self._words[:-WORDS_BYTES]
        return bool(data)
