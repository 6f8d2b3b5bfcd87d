"""SIGKILL in the middle of writing, again and again: what was committed is there, and only whole."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from asd_agent.store import Store
from store_cases import alarm_state

ROUNDS = 12

# Commits events as fast as it can, says which are committed, and writes scores in between.
WRITER = """
import sys
from pathlib import Path
import numpy as np
from store_cases import alarm_event, alarm_state, normal_window
from asd_agent.store import Message, Store

round_, first = sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(1)
store = Store(Path(sys.argv[1]))
for i in range(first, first + 100_000):
    name = f"{round_}-{i}"
    messages = [Message(topic=f"event/{name}", payload=name.encode()),
                Message(topic="alarm", payload=name.encode(), retain=True)]
    assert store.commit_events([alarm_event(name)], alarm_state(comment=name), messages)
    print(name, flush=True)
    for j in range(40):
        store.add_score("m1", normal_window(i * 40 + j, rng))
    if i % 5 == 0:
        store.flush()
"""


@pytest.mark.slow
def test_nothing_committed_is_lost_and_nothing_is_half_there(tmp_path: Path) -> None:
    rng = random.Random(20260327)
    promised: list[str] = []
    tests = Path(__file__).resolve().parents[1]
    for round_ in range(ROUNDS):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(round_), "0"],
            stdout=subprocess.PIPE,
            cwd=tests,
            text=True,
        )
        assert writer.stdout is not None
        wanted = rng.randint(1, 60)
        promised += [writer.stdout.readline().strip() for _ in range(wanted)]
        writer.kill()
        rest, _ = writer.communicate()
        promised += [name.strip() for name in rest.splitlines(keepends=True) if name.endswith("\n")]
        with Store(tmp_path) as store:
            found = [event.id for event in store.events(limit=100_000)]
            assert [name for name in found if name in set(promised)] == promised  # all, in order, once
            assert len(found) - len(promised) <= round_ + 1  # committed, killed before it could say so
            assert store.states() == {"m1": alarm_state(comment=found[-1])}
            sent = [item.message for item in store.outbox.pending(limit=1_000_000)]
            assert [m.payload.decode() for m in sent if not m.retain] == found
            assert [m.payload.decode() for m in sent if m.retain] == found[-1:]
            assert [m.payload.decode() for m in store.outbox.retained()] == found[-1:]
            assert store.health().findings == ()
            store.scores("m1")
            assert store._database.read("PRAGMA integrity_check") == [("ok",)]
    assert len(promised) > ROUNDS
