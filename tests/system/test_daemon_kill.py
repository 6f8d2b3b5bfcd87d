"""No alarm is ever lost: the whole daemon is killed again and again, around the moments at which alarms come and go."""

from __future__ import annotations

import json
import os
import random
import time
from contextlib import suppress

import pytest
from daemons import machine
from mosquitto import Collector, wait_for

from asd_agent.errors import AsdError

pytestmark = pytest.mark.system

KILLS = 10
SEED = int(os.environ.get("ASD_TEST_SEED", "20260328"))


@pytest.mark.timeout(240)
def test_every_event_arrives_and_the_state_never_runs_ahead_of_them(site, broker):
    print(f"ASD_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    site.configure(machine(site.folder, alarm={"latch": True, "window_votes": "2/3"}), mqtt={"url": broker.url})
    collector = Collector(broker.port, "asd/a/m/event", session="collector")
    for kill in range(KILLS):
        faulty = kill % 2 == 0
        site.play("faulty" if faulty else "normal")
        site.start()
        if rng.random() < 0.5:  # into what belongs to the event, or at any moment
            wait_for(lambda wanted=faulty: site.reader.states()["m"].active is wanted, f"active is {faulty}", 40.0)
            time.sleep(rng.choice((0.0, 0.001, 0.005, 0.02, 0.1)))
        else:
            time.sleep(rng.uniform(0.0, 1.5))
        if kill % 4 == 3 and site.status()["alarm"]["level"] in ("alert", "danger"):
            with suppress(AsdError):  # seen before
                site.ask("ack", machine="m", by=f"kill {kill}")
        site.kill()
        assert_consistent(site)
    site.play("faulty")
    site.start()
    site.until(level="danger")
    wait_for(lambda: site.ask("status")["sink"]["outbox"] == 0, "the broker has acknowledged everything")
    told = [event.id for event in site.events() if event.notify]
    wait_for(lambda: set(told) <= {e["id"] for e in received(collector)}, "every event arrives")
    by_id: dict[str, set[str]] = {}
    for event in received(collector):
        by_id.setdefault(event["id"], set()).add(json.dumps(event, sort_keys=True))
    assert all(len(versions) == 1 for versions in by_id.values())
    assert len(told) == len(set(told)) == len(by_id)
    assert {"raised", "assessable"} <= {event["event_type"] for event in received(collector)}
    collector.close()


def received(collector):
    return [json.loads(payload) for payload in collector.payloads("asd/a/m/event")]


def assert_consistent(site):
    """The state counts its events and names the alarm that they tell of: it was committed with them."""
    events, state = site.reader.events(limit=10_000), site.reader.states()["m"]
    assert state.sequence == len(events)
    raised = [event.alarm_id for event in events if event.kind == "raised"]
    if state.level != "normal":
        assert state.alarm_id == raised[-1]
