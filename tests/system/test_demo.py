"""`make demo`'s command as a new user runs it."""

from __future__ import annotations

import queue
import subprocess
import sys

import pytest
import soundfile
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from asd_agent import config
from asd_agent.capture.simulate import machine_blocks
from asd_agent.demo import broker as demo_broker

pytestmark = pytest.mark.system


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "asd_agent", "demo", *arguments], capture_output=True, text=True, timeout=280
    )


def test_a_fault_appears_is_told_with_its_reason_and_clears():
    done = demo("--fast")
    assert done.returncode == 0, done.stdout + done.stderr
    raised = [line for line in done.stdout.splitlines() if "RAISED" in line]
    assert len(raised) == 1
    after = " ".join(done.stdout[done.stdout.index("RAISED") :].split())
    assert "BPFO of DE" in after  # the machine's motor data are configured: the alarm names the bearing
    assert "CLEARED" in done.stdout
    assert "1 alarm(s) raised, 1 cleared" in done.stdout


@pytest.mark.slow_client
def test_real_recordings_as_the_source(tmp_path):
    sound = config.SimulatedSource(duration_s=20, pace="fast")
    with soundfile.SoundFile(tmp_path / "machine.wav", "w", sound.rate_hz, 1) as file:
        for block in machine_blocks(sound):
            file.write(block.samples)
    done = demo("--fast", "--minutes", "0.1", "--source", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "normal" in done.stdout


def test_a_source_that_is_not_there_is_one_line():
    done = demo("--source", "/nowhere/at/all")
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "/nowhere/at/all" in done.stderr


@pytest.mark.parametrize("name", ["mosquitto", "amqtt"])
def test_either_embedded_broker_carries_messages(name, tmp_path, monkeypatch):
    if name == "amqtt":
        monkeypatch.setattr(demo_broker.shutil, "which", lambda *_, **__: None)
    elif demo_broker.Broker(tmp_path).name != "mosquitto":
        pytest.skip("mosquitto is not installed (see tests/system/packages.sh)")
    with demo_broker.Broker(tmp_path) as broker:
        assert broker.name == name
        arrived: queue.Queue[bytes] = queue.Queue()
        client = Client(CallbackAPIVersion.VERSION2)
        client.on_message = lambda _client, _data, message: arrived.put(message.payload)
        client.on_subscribe = lambda *_: client.publish("a/b", b"hello", qos=1)
        client.on_connect = lambda *_: client.subscribe("a/#", qos=1)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        try:
            assert arrived.get(timeout=20) == b"hello"
        finally:
            client.disconnect()
            client.loop_stop()
