"""When to try the broker again: within a quarter of a minute, at once when the network comes up, never all together."""

from __future__ import annotations

import random
import select
import socket
import sys
import time
from contextlib import suppress

FIRST_S = (0.5, 3.0)  # after a loss; agents that lost the same broker spread over it
LATER_S = (8.0, 12.0)  # with the longest attempt (13 s) it stays below the half minute
GROWTH, MOST_GROWTHS = 2.0, 20
NETWORK_UP_S = 2.0  # agents behind one switch see its return at the same moment
_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_NEWS = {16: "link", 20: "address"}  # RTM_NEWLINK, RTM_NEWADDR


class Retry:
    """Waits between attempts. `limits_s`: of the first wait, and of the later ones; each is drawn at random."""

    def __init__(
        self,
        limits_s: tuple[tuple[float, float], tuple[float, float]] = (FIRST_S, LATER_S),
        rng: random.Random | None = None,
    ) -> None:
        self._first, self._later = limits_s
        self._rng = rng or random.Random()
        self._attempts = 0

    def reset(self) -> None:
        """There was a connection."""
        self._attempts = 0

    def next_s(self) -> float:
        """How long to wait now."""
        scale = GROWTH**self._attempts
        self._attempts = min(self._attempts + 1, MOST_GROWTHS)
        low, high = (min(scale * first, later) for first, later in zip(self._first, self._later, strict=True))
        return self._rng.uniform(low, high)

    def network_up_s(self) -> float:
        return self._rng.uniform(0.0, min(NETWORK_UP_S, self._later[1]))


class NetworkNews:
    """Says when a link or an address has appeared. Where the kernel does not tell (other systems, sandboxes): never."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        with suppress(OSError, AttributeError):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
            self._socket.bind((0, _GROUPS))
            self._socket.setblocking(False)

    def wait(self, seconds: float, wake_fd: int) -> bool:
        """Until the time is over or `wake_fd` is readable; True, at once, when the network comes up."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(wake_fd, select.POLLIN)
        if self._socket is not None:
            poll.register(self._socket, select.POLLIN)
        while (left_s := deadline - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(1000 * left_s)}
            if self._socket is not None and self._socket.fileno() in ready and self._up():
                return True
            if wake_fd in ready:
                return False
        return False

    def drain(self) -> None:
        """Forget what happened before: an attempt has just been made."""
        if self._socket is not None:
            with suppress(OSError):
                while self._socket.recv(65_536):
                    pass

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _up(self) -> bool:
        """Whether what has just been told says that something has come up."""
        assert self._socket is not None
        try:
            news = self._socket.recv(65_536)
        except OSError:  # more news than the buffer holds
            return True
        kind = int.from_bytes(news[4:6], sys.byteorder)
        if _NEWS.get(kind) == "address":
            return True
        # struct ifinfomsg after the header: family, pad, type, index, flags; IFF_RUNNING = 0x40
        flags = int.from_bytes(news[24:28], sys.byteorder)
        return _NEWS.get(kind) == "link" and bool(flags & 0x40)
