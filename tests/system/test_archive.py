"""An archive under kill -9, and on a Ray cluster that loses a node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest
import soundfile
import yaml
from daemons import asd, machine_sound
from mosquitto import free_port, wait_for

from asd_agent import config
from asd_agent.archive import run
from asd_agent.archive.engine import Engine
from asd_agent.archive.recordings import Naming
from asd_agent.archive.worker import Job
from asd_agent.baseline import BaselineStore
from asd_agent.baseline.packed import pack

pytestmark = pytest.mark.slow_client
RATE, RECORDINGS, SECONDS = 16_000, 40, 30


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with an archive of short recordings in parts of their own, and a baseline."""
    folder = tmp_path_factory.mktemp("archive")
    (folder / "sound").mkdir()
    machine = {"id": "m", "source": {"kind": "stdin", "rate_hz": RATE}, "window_s": 2, "hop_s": 1, "bundle": "spectral"}
    settings = {"agent": {"id": "t", "state_dir": str(folder / "state")}, "machines": [machine]}
    (folder / "agent.yaml").write_text(yaml.safe_dump(settings))
    sound = machine_sound(SECONDS + RECORDINGS)
    for i in range(RECORDINGS):  # every one on a day of its own: a part of its own
        part = sound[RATE * i : RATE * (i + SECONDS)]
        soundfile.write(folder / "sound" / f"2026-{1 + i // 28:02d}-{1 + i % 28:02d}T00-00-00.flac", part, RATE)
    soundfile.write(folder / "normal.flac", machine_sound(40, seed=1), RATE)
    done = asd("calibrate", "-c", folder / "agent.yaml", "m", "--from", folder / "normal.flac", "--promote")
    assert done.returncode == 0, done.stderr
    return folder


def windows(folder: Path) -> list[tuple[str, int, float]]:
    table = pyarrow.dataset.dataset(folder / "windows", format="parquet").to_table(columns=["file", "index", "p_value"])
    return sorted((row["file"], row["index"], row["p_value"]) for row in table.to_pylist())


@pytest.fixture(scope="module")
def whole(site):
    """What an undisturbed run gives."""
    command = ("archive", "score", "-c", site / "agent.yaml", site / "sound", "-o", site / "whole")
    done = asd(*command, "--engine", "processes", "--workers", "1", timeout_s=250)
    assert done.returncode == 0, done.stderr
    found = windows(site / "whole")
    assert len(found) == RECORDINGS * (SECONDS - 1)
    return found


@pytest.mark.system
def test_kill_9_and_the_same_command_again(site, whole, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "asd_agent", "archive", "score", "-c", str(site / "agent.yaml"),
               str(site / "sound"), "-o", str(out), "--engine", "processes", "--workers", "2"]  # fmt: skip

    def parts() -> list[Path]:
        return list(out.glob("windows/*/*/*.parquet"))

    for goal in (4, 12):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        wait_for(lambda goal=goal: len(parts()) >= goal, f"{goal} parts", 120)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        wait_for(lambda process=process: not members(process.pid), "the workers end with it", 20)
    before = {path: path.stat().st_mtime_ns for path in parts()}
    assert 12 <= len(before) < RECORDINGS
    assert subprocess.run(command, capture_output=True, timeout=250).returncode == 0
    assert windows(out) == whole
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing was done twice"
    assert not list(out.rglob("*.part"))


def members(session: int) -> list[int]:
    """Processes of a session that are alive."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def patiently(cluster: Any) -> Any:
    """Another node. With the ports of its helpers given, its raylet does not wait 15 s at most for them to start, which
    they do not manage on a busy machine."""
    helpers = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    for attempt in range(4):
        try:
            ports = {name: free_port() for name in helpers}
            return cluster.add_node(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False, **ports)
        except Exception as exc:  # Ray raises no other
            if attempt == 3 or "timed out during startup" not in str(exc):
                raise
    return None


@pytest.mark.timeout(600)
def test_a_cluster_that_loses_a_node_completes_and_does_nothing_twice(site, whole, tmp_path):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        patiently(cluster)
        lost = patiently(cluster)
        cluster.wait_for_nodes(timeout=120)
        settings = config.load(site / "agent.yaml")
        store = BaselineStore(settings.state_dir, "m")
        version = store.pointers().active
        assert version is not None
        job = Job(results=str(tmp_path / "out"), machines={"m": settings.machines[0]})
        killed: list[int] = []

        def watch(progress: run.Progress) -> None:
            if progress.now.recordings >= 6 and not killed:
                killed.append(progress.now.recordings)
                cluster.remove_node(lost, allow_graceful=False)

        progress = run.score(
            [str(site / "sound")], Naming(["m"]), job, {"m": pack(store, version)},
            Engine("ray", 2, cluster.address), watch,
        )  # fmt: skip
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
    assert killed
    assert progress.now.recordings == RECORDINGS
    found = windows(tmp_path / "out")
    assert set(Counter(found).values()) == {1}
    assert found == whole
