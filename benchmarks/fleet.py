"""200 agents on one broker: is an alarm lost, is every retained state right, and what does an agent cost?

    PYTHONPATH=tests:tests/system python benchmarks/fleet.py [--agents 200] [--machines 5] [--minutes 10]

The agents are simulated as far as the sound goes: store, messages, outbox and publisher are those that ship, each agent
with a database and a connection of its own. Every machine sends a score each 10 s (as `mqtt.score_interval_s: 10`), its
health each 10 s, and alarms that come and go at random, on average one transition in two minutes. The broker
(mosquitto, loopback only) is stopped every two minutes for 5 to 15 s.

A subscriber with a session of its own collects the events; afterwards the events in the stores are compared with them,
and the retained alarm states with those in the stores. Processor time is that of the processes that run the agents, in
which nothing else runs; bytes are those that the broker counts (MQTT without TCP and TLS).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import host
import numpy as np
from mosquitto import Collector, Mosquitto, wait_for

from asd_agent import config, log
from asd_agent.publish import Messages, Publisher
from asd_agent.store import Reader, Store
from asd_agent.types import AlarmState, ChainStatus, EventKind, Level, State
from store_cases import alarm_event, alarm_state, normal_window

PROCESSES = 4
SCORE_S = HEALTH_S = 10.0
TRANSITION_S = 120.0  # mean, of one machine
OUTAGE_EVERY_S, OUTAGE_S = 120.0, (5.0, 15.0)
SETTLE_S = 120.0


class Agent:
    """One agent without sound."""

    def __init__(self, folder: Path, name: str, machines: int, port: int, seed: int) -> None:
        self._rng, self._np = random.Random(seed), np.random.default_rng(seed)
        self._messages = Messages(name, "asd", lambda: True)
        self._store = Store(folder / name)
        settings = config.Mqtt(url=f"mqtt://127.0.0.1:{port}")
        self.publisher = Publisher(settings, self._messages, self._store.outbox, lambda verb, data: None)
        self._machines = [f"m{i}" for i in range(machines)]
        self._raised = dict.fromkeys(self._machines, False)
        self._windows = self._events = 0
        now = time.monotonic()
        self._next_score_s = {m: now + self._rng.uniform(0, SCORE_S) for m in self._machines}
        self._next_event_s = {m: now + self._rng.expovariate(1 / TRANSITION_S) for m in self._machines}
        self._next_health_s = now
        self.publisher.start()
        for machine in self._machines:
            state = AlarmState(mode=State.NORMAL)
            self._store.set_state(machine, state, [self._messages.of(self._messages.alarm(machine, state))])
            self.publisher.retain(self._messages.machine_availability(machine, online=True))

    def step(self, now: float) -> None:
        for machine in self._machines:
            if now >= self._next_score_s[machine]:
                self._next_score_s[machine] += SCORE_S
                self._score(machine)
            if now >= self._next_event_s[machine]:
                self._next_event_s[machine] = now + self._rng.expovariate(1 / TRANSITION_S)
                self._transition(machine)
        if now >= self._next_health_s:
            self._next_health_s = now + HEALTH_S
            for machine in self._machines:
                self.publisher.retain(
                    self._messages.of(
                        self._messages.health(machine, status=ChainStatus.GOOD, reasons=(), source_available=True)
                    )
                )

    def _score(self, machine: str) -> None:
        self._windows += 1
        result = normal_window(self._windows, self._np, utc_s=time.time())
        self._store.add_score(machine, result, "20260320T081500Z")
        self.publisher.publish(
            self._messages.of(self._messages.score(machine, result, baseline="20260320T081500Z", score_limit=4.0))
        )

    def _transition(self, machine: str) -> None:
        self._events += 1
        raised = self._raised[machine] = not self._raised[machine]
        name = f"{self._messages.topics.agent}-{machine}-{self._events}"
        kind, level = (EventKind.RAISED, Level.ALERT) if raised else (EventKind.CLEARED, Level.NORMAL)
        event = alarm_event(name, machine, kind=kind, level=level, utc_s=time.time())
        state = alarm_state(level, mode=State.NORMAL, sequence=self._events)
        self._store.commit_events([event], state, self._messages.of_event(event, state))

    def close(self) -> None:
        self.publisher.stop()
        self._store.close()

    @property
    def waiting(self) -> int:
        return self._store.outbox.depth()


def run_agents(args: argparse.Namespace) -> None:
    """A process of agents: until the time is over and all is sent. Its costs go to standard output."""
    log.configure("error")
    first, count = args.part
    folder = Path(args.folder)
    agents = [Agent(folder, f"agent-{i}", args.machines, args.port, i) for i in range(first, first + count)]
    before = resource.getrusage(resource.RUSAGE_SELF)
    end = time.monotonic() + args.minutes * 60
    while (now := time.monotonic()) < end:
        for agent in agents:
            agent.step(now)
        time.sleep(0.25)
    after = resource.getrusage(resource.RUSAGE_SELF)
    settled = time.monotonic() + SETTLE_S
    while any(agent.waiting for agent in agents) and time.monotonic() < settled:
        time.sleep(0.2)
    waiting = sum(agent.waiting for agent in agents)
    dropped = sum(agent.publisher.dropped for agent in agents)
    print(
        json.dumps(
            {
                "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                "rss_mb": after.ru_maxrss / 1024,
                "waiting": waiting,
                "scores_dropped": dropped,
            }
        ),
        flush=True,
    )
    sys.stdin.readline()  # connected until all have been looked at
    for agent in agents:
        agent.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--machines", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results" / "fleet.json")
    parser.add_argument("--part", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        run_agents(args)
        return
    with tempfile.TemporaryDirectory(prefix="asd-fleet-") as folder:
        found = measure(args, Path(folder))
    args.output.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    if found["events_lost"] or found["retained_wrong"]:
        sys.exit(1)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    broker = Mosquitto(folder / "broker", "allow_anonymous true", "sys_interval 1")
    broker.start()
    events = Collector(broker.port, "asd/+/+/event", session="historian")
    traffic = Collector(broker.port, "$SYS/broker/bytes/received")
    with processes(args, folder / "agents", broker.port) as children:
        outages = trouble(broker, args.minutes * 60)
        costs = [json.loads(child.stdout.readline()) for child in children if child.stdout]
        time.sleep(3.0)
        retained = Collector(broker.port, "asd/+/+/alarm")
        wait_for(lambda: len(retained.messages) >= args.agents * args.machines, "retained states", 60.0)
        received = _counted(traffic)
    for collector in (retained, events, traffic):
        collector.client.loop_stop()
    broker.stop()
    return {
        "host": host.machine(),
        "agents": args.agents,
        "machines_each": args.machines,
        "minutes": args.minutes,
        "outages": len(outages),
        "outage_s": round(sum(outages), 1),
        **compare(folder / "agents", events, retained),
        **_cost(args, costs, received),
    }


def trouble(broker: Mosquitto, seconds: float) -> list[float]:
    """Stop the broker now and then, but not in the last minute; how long it was away."""
    rng, outages = random.Random(1), []
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(OUTAGE_EVERY_S, left))
        if end - time.monotonic() > OUTAGE_S[1]:
            pause_s = rng.uniform(*OUTAGE_S)
            broker.stop()
            time.sleep(pause_s)
            broker.start()
            outages.append(pause_s)
    return outages


def compare(folder: Path, events: Collector, retained: Collector) -> dict[str, int]:
    """What the stores hold against what came."""
    came = [json.loads(m.payload)["id"] for m in events.messages]
    states = {m.topic: json.loads(m.payload) for m in retained.messages if m.payload}
    committed, wrong = set[str](), 0
    for path in sorted(folder.iterdir()):
        last: dict[str, str] = {}
        for event in sorted(Reader(path).events(limit=1_000_000), key=lambda e: int(e.id.rpartition("-")[2])):
            committed.add(event.id)
            last[event.machine] = event.level.value
        wrong += sum(states.get(f"asd/{path.name}/{m}/alarm", {}).get("level") != level for m, level in last.items())
    return {
        "events": len(committed),
        "events_lost": len(committed - set(came)),
        "events_twice": len(came) - len(set(came)),
        "retained_states": len(states),
        "retained_wrong": wrong,
    }


def _cost(args: argparse.Namespace, costs: list[dict[str, float]], received: float) -> dict[str, float]:
    hours = args.minutes / 60
    return {
        "cpu_s_per_agent_and_hour": round(sum(c["cpu_s"] for c in costs) / args.agents / hours, 2),
        "kilobytes_per_agent_and_hour": round(received / 1000 / args.agents / hours, 1),
        "rss_mb_per_agent": round(sum(c["rss_mb"] for c in costs) / args.agents, 2),
        "messages_waiting": sum(c["waiting"] for c in costs),
        "scores_not_sent_during_outages": sum(c["scores_dropped"] for c in costs),
    }


def _counted(traffic: Collector) -> float:
    """The broker counts anew after each start: the sum of the highest counts of its lives."""
    total = highest = 0.0
    for message in traffic.messages:
        count = float(message.payload)
        if count < highest:
            total += highest
        highest = count
    return total + highest


@contextlib.contextmanager
def processes(args: argparse.Namespace, folder: Path, port: int) -> Iterator[list[subprocess.Popen[str]]]:
    folder.mkdir()
    bounds = [args.agents * i // PROCESSES for i in range(PROCESSES + 1)]
    common = ["--machines", str(args.machines), "--minutes", str(args.minutes), "--port", str(port)]
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "--part", str(a), str(b - a), *common, "--folder", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for a, b in itertools.pairwise(bounds)
        if b > a
    ]
    try:
        yield children
    finally:
        for child in children:
            child.communicate("\n", timeout=120)


if __name__ == "__main__":
    main()
