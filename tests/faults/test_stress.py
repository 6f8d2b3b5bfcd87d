"""16 machines at the highest rate; status, health, reloads, requests and calibrations all the time; nothing breaks.

A minute in `make test`; STRESS_MINUTES=10 for the long form (part of `make faults`).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest

from asd_agent.errors import AsdError
from faults.world import Resources

pytestmark = [pytest.mark.system, pytest.mark.faults]

MACHINES = 16
SECONDS = 60 * float(os.environ.get("STRESS_MINUTES", "0.5"))
SEED = int(os.environ.get("ASD_TEST_SEED", "20261121"))


def machines(rng):
    """Each on a simulated machine of its own, as fast as the worker can; some settings change with every reload."""
    for i in range(MACHINES):
        yield {
            "id": f"m{i}",
            "source": {"kind": "simulated", "seed": i, "pace": "fast", "duration_s": 1e6, "rate_hz": 16_000},
            "window_s": 1.0,
            "hop_s": 0.5,
            "alarm": {"window_votes": rng.choice(("2/3", "3/5"))},
        }


@pytest.mark.timeout(SECONDS + 240)
def test_all_threads_at_once(site, broker):
    print(f"ASD_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    for i in range(MACHINES):
        site.copy_baseline(f"m{i}")
    site.configure(*machines(rng), mqtt={"url": broker.url})
    site.start()
    stop = time.monotonic() + SECONDS
    done, refused, broken = Counter(), Counter(), []

    def repeat(act, pause_s, seed):
        own = random.Random(seed)
        while time.monotonic() < stop:
            try:
                act(own)
                done[act.__name__] += 1
            except AsdError:
                refused[act.__name__] += 1
            except Exception as exc:  # noqa: BLE001 - told below
                broken.append(repr(exc))
                return
            time.sleep(own.uniform(0, pause_s))

    def status(own):
        site.ask("status")

    def command(own):
        name = f"m{own.randrange(MACHINES)}"
        verb = own.choice(("ack", "shelve", "unshelve", "out_of_service", "rollback", "extend", "rename_state"))
        more = {
            "shelve": {"minutes": 1.0},
            "out_of_service": {"on": own.random() < 0.5},
            "rename_state": {"old": "running", "new": "running"},
        }.get(verb, {})
        site.ask(verb, machine=name, **more)

    def calibrate(own):
        site.ask("calibrate", machine=f"m{own.randrange(MACHINES)}", duration_s=10.0, promote=True)

    def progress(own):
        with suppress(AsdError):
            site.ask("calibration", machine=f"m{own.randrange(MACHINES)}")

    def reload(own):
        site.configure(*machines(own), mqtt={"url": broker.url})
        site.reload()

    acts = [(status, 0.02), (status, 0.02), (command, 0.02), (command, 0.05), (calibrate, 1.0), (progress, 0.05)]
    acts.append((reload, 4.0))
    threads = [threading.Thread(target=repeat, args=(act, pause, i)) for i, (act, pause) in enumerate(acts)]
    for thread in threads:
        thread.start()
    time.sleep(min(15.0, SECONDS / 2))
    first = Resources.of(site.process.pid)
    for thread in threads:
        thread.join()
    last = Resources.of(site.process.pid)
    scored = sum(machine["health"]["windows_scored"] for machine in site.ask("status")["machines"])
    print(f"{dict(done)} refused {dict(refused)}, {scored} windows since their last reload, {first} -> {last}")
    assert broken == []
    assert "Traceback" not in site.said
    assert "internal error" not in site.said
    assert done["status"] > SECONDS
    assert done["calibrate"] >= 1
    assert scored > 0
    assert last.threads <= first.threads + 8
    assert last.files <= first.files + 16
    assert site.stop() == 0
