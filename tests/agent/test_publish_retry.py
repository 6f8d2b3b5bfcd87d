"""When the broker is tried again: soon, at random, and at once when the network comes up."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import time
from collections import Counter

import pytest

from asd_agent.publish.connection import CONNECT_TIMEOUT_S
from asd_agent.publish.mqtt import FALLBACK_S
from asd_agent.publish.retry import LATER_S, NetworkNews, Retry

AGENTS = 200


def attempts(seed: int, until_s: float) -> list[float]:
    """When an agent tries whose broker is gone from 0 on; a refused connection takes no time."""
    retry, at_s, found = Retry(rng=random.Random(seed)), 0.0, []
    while (at_s := at_s + retry.next_s()) < until_s:
        found.append(at_s)
    return found


@pytest.mark.parametrize("outage_s", [0.5, 3.0, 30.0, 600.0, 86_400.0])
def test_200_agents_come_back_soon_and_not_all_at_once(outage_s: float) -> None:
    recovered = sorted(
        next(t for t in attempts(seed, outage_s + 60) if t >= outage_s) - outage_s for seed in range(AGENTS)
    )
    assert recovered[AGENTS // 2] <= 10.0
    assert recovered[-1] + CONNECT_TIMEOUT_S + FALLBACK_S <= 30.0  # also after an attempt that had just begun in vain
    for phase in (0.0, 0.25, 0.5, 0.75):  # connections in any second
        seconds = Counter(int(t + phase) for t in recovered)
        assert max(seconds.values()) <= 100


def test_an_outage_costs_few_attempts() -> None:
    rates = [len(attempts(seed, 3600.0)) / 3600.0 for seed in range(AGENTS)]
    assert max(rates) * LATER_S[0] <= 1.05


def test_waiting_ends_with_a_wake_up() -> None:
    read, write = socket.socketpair()
    news = NetworkNews()
    try:
        write.send(b"x")
        began_s = time.monotonic()
        assert news.wait(30.0, read.fileno()) is False
        assert time.monotonic() - began_s < 10.0
    finally:
        for each in (news, read, write):
            each.close()


def test_waiting_ends_when_an_address_appears() -> None:
    ip = shutil.which("ip") or shutil.which("ip", path="/usr/sbin:/sbin")
    if ip is None:
        pytest.skip("needs ip (iproute2)")
    read, write = socket.socketpair()
    news = NetworkNews()
    add = subprocess.run([ip, "address", "add", "127.9.9.9/32", "dev", "lo"], capture_output=True, check=False)
    try:
        if add.returncode != 0:
            pytest.skip("may not add an address to the loopback interface (needs root)")
        assert news.wait(30.0, read.fileno()) is True
    finally:
        if add.returncode == 0:
            subprocess.run([ip, "address", "del", "127.9.9.9/32", "dev", "lo"], check=True)
        for each in (news, read, write):
            each.close()
