"""A short form of `make faults`: every lane for some seconds; nothing lost, nothing wrong, everything recovers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mosquitto import BINARY

from faults.outcomes import as_text
from faults.run import LANES, Run

pytestmark = [
    pytest.mark.system,
    pytest.mark.faults,
    pytest.mark.skipif(BINARY is None, reason="needs mosquitto (see tests/system/packages.sh)"),
]

SECONDS = 25.0
SEED = int(os.environ.get("ASD_TEST_SEED", "20261121"))
SHORT = ("network-0", "network-1", "process-0", "power-0", "damage-0", "disk-0", "daemon-0")


@pytest.mark.timeout(180)
def test_faults_cost_nothing_that_was_committed(tmp_path: Path) -> None:
    print(f"ASD_TEST_SEED={SEED}")
    run = Run(tmp_path, SEED, {name: LANES[name] for name in SHORT})
    run.go(SECONDS)
    print(as_text(run.outcomes.table(), run.outcomes.total()))
    assert run.broken == []
    assert run.outcomes.bad == []
    assert len(run.outcomes) >= 40
    assert run.outcomes.total()["kinds"] >= 20
