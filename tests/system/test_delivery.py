"""No alarm event is ever lost: the broker stops and starts, the publishing process is killed, 20 times."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mosquitto import BINARY, Collector, Mosquitto, wait_for

from asd_agent.store import Reader

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(BINARY is None, reason="needs mosquitto (see tests/system/packages.sh)"),
]

EVENTS = 200
KILLS = 20
SEED = int(os.environ.get("ASD_TEST_SEED", "20260327"))
SOURCE = Path(__file__).with_name("alarm_source.py")


def start_source(state_dir: Path, port: int, events: int, seed: int, *options: str) -> subprocess.Popen[bytes]:
    arguments = [str(state_dir), str(port), str(events), str(seed), *options]
    source = subprocess.Popen([sys.executable, str(SOURCE), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert source.stdout is not None
    source.stdout.readline()
    return source


def harass(rng: random.Random, broker: Mosquitto, source: subprocess.Popen[bytes]) -> None:
    """Kill the source at a random moment; the broker is stopped or started at some others."""
    deeds = [(rng.uniform(0.0, 0.3), "kill")]
    deeds += [(rng.uniform(0.0, 0.3), "toggle") for _ in range(rng.choice((0, 0, 1, 2)))]
    began_s = time.monotonic()
    for moment_s, deed in sorted(deeds):
        time.sleep(max(0.0, began_s + moment_s - time.monotonic()))
        if deed == "kill":
            source.send_signal(signal.SIGKILL)
            _, errors = source.communicate()
            assert source.returncode == -signal.SIGKILL, errors.decode()
        elif broker.running:
            broker.stop()
        else:
            broker.start()


@pytest.mark.timeout(150)
def test_every_event_arrives_and_each_id_is_one_event(tmp_path: Path) -> None:
    print(f"ASD_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    state_dir = tmp_path / "state"
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    collector = Collector(broker.port, "asd/#", session="collector")
    try:
        for kill in range(KILLS):
            events = EVENTS * (kill + 1) // (KILLS + 1)
            harass(rng, broker, start_source(state_dir, broker.port, events, rng.getrandbits(32)))
        if not broker.running:
            broker.start()
        source = start_source(state_dir, broker.port, EVENTS, rng.getrandbits(32), "--finish")
        _, errors = source.communicate(timeout=60)
        assert source.returncode == 0, errors.decode()

        committed = [event.id for event in Reader(state_dir).events(limit=10 * EVENTS)]
        assert len(committed) == len(set(committed)) == EVENTS
        topic = "asd/hall-1/m1/event"
        wait_for(
            lambda: set(committed) <= {json.loads(p)["id"] for p in collector.payloads(topic)},
            "every event arrives at least once",
        )
        arrived = [json.loads(payload) for payload in collector.payloads(topic)]
        by_id: dict[str, dict[str, object]] = {}
        for event in arrived:
            assert by_id.setdefault(event["id"], event) == event  # each id is exactly one event
        assert list(by_id) == committed  # no other, none before it was committed, and in order
        assert [event["reason"] for event in by_id.values()] == [f"event {i}" for i in range(EVENTS)]
        assert arrived[0]["schema"] == "asd/event/1"
        print(f"{EVENTS} events, {len(arrived)} arrivals, {KILLS} kills")

        late = Collector(broker.port, "asd/#")
        wait_for(lambda: late.last("asd/hall-1/m1/alarm") is not None, "the alarm state is retained")
        state = json.loads(late.last("asd/hall-1/m1/alarm") or b"")
        assert state["comment"] == committed[-1]
        wait_for(lambda: late.last("asd/hall-1/availability") == b"offline", "the source has said goodbye")
        late.close()
    finally:
        collector.close()
        broker.stop()
