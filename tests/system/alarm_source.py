"""Commits alarm events and publishes them, as the daemon does; killed by test_delivery at random moments.

alarm_source.py STATE_DIR PORT EVENTS SEED [--finish]: says "ready", goes on from what the store holds until there
are EVENTS; then waits to be killed, or with --finish until the broker has acknowledged everything.
"""

from __future__ import annotations

import random
import sys
import time
import uuid
from pathlib import Path

from asd_agent import config
from asd_agent.publish import Messages, Publisher
from asd_agent.publish.retry import Retry
from asd_agent.store import Store
from asd_agent.types import AlarmEvent, AlarmState, EventKind, Level

KINDS = (EventKind.RAISED, EventKind.ESCALATED, EventKind.CLEARED)


def main() -> None:
    state_dir, port, wanted, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    rng = random.Random(seed)
    messages = Messages("hall-1", "asd", lambda: True)
    with Store(Path(state_dir)) as store:
        settings = config.Mqtt(url=f"mqtt://127.0.0.1:{port}")
        publisher = Publisher(settings, messages, store.outbox, retry=Retry(((0.02, 0.02), (0.1, 0.1))))
        publisher.start()
        print("ready", flush=True)
        for number in range(len(store.events(limit=wanted)), wanted):
            event = AlarmEvent(
                id=uuid.uuid4().hex,
                alarm_id=f"alarm-{number // 3}",
                machine="m1",
                kind=KINDS[number % 3],
                level=Level.ALERT,
                utc_s=time.time(),
                time_synced=True,
                reason=f"event {number}",
            )
            state = AlarmState(level=Level.ALERT, alarm_id=event.alarm_id, comment=event.id)
            assert store.commit_events([event], state, messages.of_event(event, state))
            time.sleep(rng.choice((0.0, 0.0, 0.01, 0.05)))
        deadline = time.monotonic() + 30
        while "--finish" not in sys.argv or store.outbox.depth():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        publisher.stop()


main()
