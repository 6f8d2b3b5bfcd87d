"""A process that commits alarm events and publishes them, as the daemon does: source.py STATE_DIR PORT AGENT SEED.

Standard input: `pause` (answered by `paused`), `go`, `quit`. Standard output: one line for each commit, once it is on
disk: its id and the bytes of the database's log that were in use by then.
"""

from __future__ import annotations

import random
import select
import sys
import time
import uuid
from pathlib import Path

import msgspec
import numpy as np

from asd_agent import config, log
from asd_agent.errors import AsdError
from asd_agent.publish import Messages, Publisher
from asd_agent.store import Store
from asd_agent.types import AlarmEvent, AlarmState, EventKind, Level
from store_cases import normal_window

KINDS = (EventKind.RAISED, EventKind.ESCALATED, EventKind.CLEARED, EventKind.ACKNOWLEDGED)
LEVELS = (Level.ALERT, Level.DANGER, Level.NORMAL, Level.NORMAL)
MACHINES = ("m0", "m1", "m2")
PAUSES_S = (0.0, 0.02, 0.05, 0.2, 0.4)


def main() -> None:
    state_dir, port, agent, seed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    log.configure("error")  # to standard error: our own words go to standard output
    rng = random.Random(seed)
    windows = np.random.default_rng(seed)
    messages = Messages(agent, "asd", lambda: True)
    with Store(state_dir) as store:
        settings = config.Mqtt(url=f"mqtt://127.0.0.1:{port}")
        publisher = Publisher(settings, messages, store.outbox)
        states = store.states()
        for machine in MACHINES:
            state = states.setdefault(machine, AlarmState())
            store.set_state(machine, state, [messages.of(messages.alarm(machine, state))])
        publisher.start()
        print("ready", flush=True)
        paused, tidied_s = False, time.monotonic()
        while True:
            order = read_order(0.0 if not paused else 0.1)
            if order == "quit":
                break
            if order in ("pause", "go"):
                paused = order == "pause"
                print("paused" if paused else "going", flush=True)
            if time.monotonic() - tidied_s > 1.0:
                tidied_s = time.monotonic()
                store.maintain()
            if not paused:
                commit(store, messages, states, rng, windows)
        publisher.stop()


def read_order(timeout_s: float) -> str:
    ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
    return (sys.stdin.readline().strip() or "quit") if ready else ""


def commit(
    store: Store,
    messages: Messages,
    states: dict[str, AlarmState],
    rng: random.Random,
    windows: np.random.Generator,
) -> None:
    machine = rng.choice(MACHINES)
    before = states[machine]
    step = before.sequence % len(KINDS)
    event = AlarmEvent(
        id=uuid.uuid4().hex, alarm_id=before.alarm_id or uuid.uuid4().hex, machine=machine, kind=KINDS[step],
        level=LEVELS[step], utc_s=time.time(), time_synced=True, reason=f"event {before.sequence}",
    )  # fmt: skip
    state = msgspec.structs.replace(
        before, level=event.level, alarm_id=event.alarm_id, comment=event.id, sequence=before.sequence + 1
    )
    states[machine] = state
    committed = store.commit_events([event], state, messages.of_event(event, state))
    log = Path(f"{store.path}-wal")
    print(
        f"{'committed' if committed else 'waiting'} {event.id} {log.stat().st_size if log.exists() else 0}", flush=True
    )
    for i in range(rng.randrange(0, 6)):
        store.add_score(machine, normal_window(before.sequence * 8 + i, windows))
    if rng.random() < 0.3:
        store.flush()
    time.sleep(rng.choice(PAUSES_S))


try:
    main()
except AsdError as exc:
    sys.exit(str(exc))
