"""A TCP proxy between agent and broker that does what networks and brokers do to a connection.

Connections that lost bytes stay dead after the fault, as behind a router that has forgotten them: the agent has to
notice by itself. Only loopback addresses are used.
"""

from __future__ import annotations

import random
import selectors
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field

STEP_S = 0.02
CHUNK = 65_536

LASTING = (
    "refuse",  # nobody listens
    "accept and keep silent",
    "half an answer",  # the first bytes of what the broker says, then nothing
    "swallow what the agent sends",
    "swallow what the broker sends",
    "swallow both ways",
    "stop reading",  # the receive window closes
    "trickle",  # a few bytes at a time
    "delay",
)
MOMENTARY = (
    "reset",
    "reset in the middle of a publish",
    "close",
    "close in the middle of a publish",
    "garbage to the agent",
    "garbage to the broker",
)


@dataclass(eq=False)
class _Pair:
    agent: socket.socket
    broker: socket.socket | None
    dead: bool = False  # bytes have been lost
    told: int = 0  # bytes of the broker that were passed on
    late: dict[socket.socket, deque[tuple[float, bytes]]] = field(default_factory=dict)

    @property
    def sockets(self) -> list[socket.socket]:
        return [self.agent] + ([self.broker] if self.broker is not None else [])


class Proxy:
    """Listens on a free loopback port; `begin` and `end` a fault from any thread."""

    def __init__(self, upstream_port: int, rng: random.Random) -> None:
        self._upstream = upstream_port
        self._rng = rng
        self._pairs: list[_Pair] = []
        self._fault = ""
        self._bytes_left = 0  # before the connection breaks in the middle of a publish
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def begin(self, fault: str) -> None:
        """A momentary fault is over when this returns, or after some more bytes."""
        with self._lock:
            if fault in LASTING:
                self._fault = fault
            if fault in ("refuse", "accept and keep silent", "half an answer"):
                self._drop_all(hard=self._rng.random() < 0.5)
            if fault == "refuse" and self._listener is not None:
                self._listener.close()
                self._listener = None
            if fault in ("reset", "close"):
                self._drop_all(hard=fault == "reset")
            if fault.endswith("in the middle of a publish"):
                self._fault, self._bytes_left = fault, self._rng.randrange(1, 2500)
            if fault.startswith("garbage"):
                self._garbage(to_agent=fault.endswith("agent"))

    def end(self) -> None:
        with self._lock:
            self._fault = ""
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self.port))

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        with self._lock:
            self._drop_all(hard=True)
            if self._listener is not None:
                self._listener.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            with selectors.DefaultSelector() as selector:
                with self._lock:  # nothing is closed between the question and the registration
                    self._register(selector)
                ready = selector.select(STEP_S)
            with self._lock:
                for key, _ in ready:
                    if key.data is None:
                        self._accept()
                    else:
                        self._move(key.data, key.fileobj)  # type: ignore[arg-type]
                self._send_late()

    def _register(self, selector: selectors.BaseSelector) -> None:
        if self._listener is not None:
            selector.register(self._listener, selectors.EVENT_READ)
        if self._fault == "stop reading":
            return
        for pair in self._pairs:
            for sock in pair.sockets:
                selector.register(sock, selectors.EVENT_READ, pair)

    def _accept(self) -> None:
        try:
            agent, _ = self._listener.accept() if self._listener is not None else (None, None)
            if agent is None:
                return
            silent = self._fault == "accept and keep silent"
            broker = None if silent else socket.create_connection(("127.0.0.1", self._upstream), 2.0)
        except OSError:  # the broker is down: the agent sees a connection that closes
            if agent is not None:
                agent.close()
            return
        for sock in (agent, broker):
            if sock is not None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(2.0)
        self._pairs.append(_Pair(agent, broker, dead=silent))

    def _move(self, pair: _Pair, source: socket.socket) -> None:
        if pair not in self._pairs or source.fileno() < 0:
            return
        upwards = source is pair.agent
        few = self._fault == "trickle"
        try:
            data = source.recv(self._rng.randrange(1, 30) if few else CHUNK)
        except OSError:
            data = b""
        if not data:
            self._drop(pair, hard=False)
            return
        if pair.dead or self._swallows(pair, upwards):
            return
        if self._fault == "half an answer" and not upwards:
            data = data[: max(3 - pair.told, 0)]
            pair.told += len(data)
        target = pair.broker if upwards else pair.agent
        if self._fault == "delay" and target is not None:
            pair.late.setdefault(target, deque()).append((time.monotonic() + self._rng.uniform(0.3, 1.5), data))
        elif self._fault.endswith("in the middle of a publish") and upwards and len(data) >= self._bytes_left:
            self._pass_on(pair, target, data[: self._bytes_left])
            self._drop(pair, hard=self._fault.startswith("reset"))
            self._fault = ""
        else:
            if upwards:
                self._bytes_left -= len(data)
            self._pass_on(pair, target, data)

    def _swallows(self, pair: _Pair, upwards: bool) -> bool:
        which = {"swallow what the agent sends": (True,), "swallow what the broker sends": (False,)}
        lost = upwards in which.get(self._fault, ()) or self._fault == "swallow both ways"
        pair.dead = pair.dead or lost
        return lost

    def _pass_on(self, pair: _Pair, target: socket.socket | None, data: bytes) -> None:
        if target is None or not data:
            return
        waiting = pair.late.get(target)
        if waiting:  # never overtake what was delayed
            waiting.append((time.monotonic(), data))
            return
        try:
            target.sendall(data)
        except OSError:
            self._drop(pair, hard=False)

    def _send_late(self) -> None:
        now = time.monotonic()
        for pair in list(self._pairs):
            for target, waiting in pair.late.items():
                while waiting and (waiting[0][0] <= now or not self._fault):
                    try:
                        target.sendall(waiting.popleft()[1])
                    except OSError:
                        self._drop(pair, hard=False)
                        break

    def _garbage(self, to_agent: bool) -> None:
        for pair in list(self._pairs):
            target = pair.agent if to_agent else pair.broker
            if target is not None and target.fileno() >= 0:
                try:
                    target.sendall(self._rng.randbytes(self._rng.randrange(1, 400)))
                except OSError:
                    pass
            pair.dead = pair.dead or not to_agent

    def _drop_all(self, hard: bool) -> None:
        for pair in list(self._pairs):
            self._drop(pair, hard)

    def _drop(self, pair: _Pair, hard: bool) -> None:
        if pair in self._pairs:
            self._pairs.remove(pair)
        for sock in pair.sockets:
            if hard and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
