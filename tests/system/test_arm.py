"""The edge installation on 64-bit ARM (Raspberry Pi 4 and 5), as far as an emulated processor can show it.

Debian's arm64 packages and the wheels that pip would take there, run by qemu-user in proot: the kernel need
not support it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from container import CACHE, REPOSITORY, run, which
from daemons import machine_sound
from mosquitto import BINARY, Mosquitto
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from asd_agent import config
from asd_agent.api import Detector

pytestmark = [pytest.mark.system, pytest.mark.slow_client, pytest.mark.timeout(1500)]

TOOLS = ("debootstrap", "dpkg-deb", "proot", "qemu-aarch64-static")
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in (17, 24, 26, 27, 28, 34, 35)]
SITE = "opt/site"
ATTEMPTS = 5  # of the emulator
RATE = 16_000


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> Path:
    """The root of an arm64 system with the edge installed. Kept in .cache but for our own wheel."""
    missing = [tool for tool in TOOLS if not which(tool)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (see tests/system/packages.sh)")
    root = CACHE / "bookworm-arm64"
    if not root.is_dir():
        CACHE.mkdir(exist_ok=True)
        making = CACHE / "bookworm-arm64.making"
        shutil.rmtree(making, ignore_errors=True)
        run(
            "debootstrap", "--foreign", "--arch=arm64", "--variant=minbase", "--include=python3,libportaudio2",
            "bookworm", str(making), timeout=900,
        )  # fmt: skip
        for package in (making / "var/cache/apt/archives").glob("*.deb"):
            run("dpkg-deb", "-x", str(package), str(making))
        making.rename(root)
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "-q", "-w", str(folder), str(REPOSITORY), timeout=300)
    (wheel,) = folder.glob("asd_agent-*.whl")
    shutil.rmtree(root / SITE, ignore_errors=True)
    platforms = [word for platform in ("any", "manylinux2014_aarch64", *PLATFORMS) for word in ("--platform", platform)]
    run(
        *pip, "install", "-q", "--target", str(root / SITE), "--python-version", "3.11", "--implementation", "cp",
        "--only-binary=:all:", *platforms, str(wheel), timeout=900,
    )  # fmt: skip
    return root


def on_board(root: Path, folder: Path, *words: str) -> list[str]:
    """The command line of `python3 words` there, with `folder` at the same place."""
    return [
        which("proot") or "", "-q", which("qemu-aarch64-static") or "", "-r", str(root), "-b", str(folder),
        "-b", "/dev", "-b", "/proc", "-w", str(folder), "/usr/bin/env", f"PYTHONPATH=/{SITE}", "HOME=/root",
        "python3", *words,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def site(board, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("board")
    soundfile.write(folder / "normal.wav", machine_sound(30), RATE)
    fault = config.Fault(kind="bearing", level_db=0)
    later = np.concatenate([machine_sound(4, seed=1), machine_sound(4, fault, seed=2)])
    soundfile.write(folder / "later.wav", later, RATE)
    write(folder)
    return folder


def write(folder: Path, **sections: object) -> None:
    source = {"kind": "file", "path": str(folder / "normal.wav"), "loop": True}
    machine = {"id": "m", "source": source, "window_s": 2, "hop_s": 2}
    agent = {"id": "pi", "state_dir": str(folder / "state")}
    (folder / "agent.yaml").write_text(yaml.safe_dump({"agent": agent, "machines": [machine], **sections}))


def emulated(root: Path, folder: Path, *words: str) -> str:
    """What the command prints there. The emulator itself crashes now and then with many threads: then again."""
    for _ in range(ATTEMPTS):
        done = subprocess.run(on_board(root, folder, *words), capture_output=True, text=True, timeout=600, check=False)
        if "uncaught target signal" not in done.stderr:
            assert done.returncode == 0, done.stderr
            return done.stdout
    pytest.skip(f"the emulator crashed {ATTEMPTS} times in a row: {done.stderr.strip().splitlines()[-1]}")


def test_it_is_that_processor(board, site):
    said = run(*on_board(board, site, "-c", "import platform; print(platform.machine())"))
    assert said.strip().endswith("aarch64")


def test_it_calibrates_and_scores_as_here(board, site):
    asd = ("-m", "asd_agent")
    said = emulated(board, site, *asd, "calibrate", "m", "--from", "normal.wav", "--promote")
    assert "promoted" in said  # proot does not pass on every way of ending
    emulated(board, site, *asd, "score", "m", "later.wav", "-o", "scores.csv")
    rows = list(csv.DictReader(io.StringIO((site / "scores.csv").read_text())))
    assert [row["state"] for row in rows] == ["normal", "normal", "anomalous", "anomalous"]
    # The baseline that was made there judges here, with the same scores.
    here = Detector.from_baseline(site / "agent.yaml", "m").score(soundfile.read(site / "later.wav")[0], RATE)
    assert [s.score for s in here] == pytest.approx([float(row["score"]) for row in rows], rel=0.02, abs=0.02)


def test_its_daemon_speaks_to_a_broker_and_answers(board, site, tmp_path):
    if BINARY is None:
        pytest.skip("needs mosquitto (see tests/system/packages.sh)")
    if not (site / "state").exists():
        pytest.skip("there is no baseline: the calibration failed")
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    write(site, mqtt={"url": f"mqtt://127.0.0.1:{broker.port}"})
    arrived: queue.Queue[tuple[str, dict]] = queue.Queue()
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _client, _data, m: arrived.put((m.topic, json.loads(m.payload or b"null")))
    client.on_connect = lambda *_: client.subscribe([("asd/pi/m/score", 1), ("asd/pi/response/#", 1)])
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    log = (site / "daemon.log").open("wb")
    daemon = subprocess.Popen(
        on_board(board, site, "-m", "asd_agent", "run"), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        start_new_session=True,
    )  # fmt: skip
    try:
        topic, score = arrived.get(timeout=300)
        assert topic == "asd/pi/m/score"
        assert score["state"] == "normal"
        client.publish("asd/pi/request/status", b"{}", qos=1)
        while topic != "asd/pi/response/status":
            topic, answer = arrived.get(timeout=120)
        assert answer["status"] == "ok"
    except queue.Empty:
        pytest.fail((site / "daemon.log").read_text()[-2000:])
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)  # proot passes no signal on
        daemon.wait(120)
        log.close()
        client.disconnect()
        client.loop_stop()
        broker.stop()
