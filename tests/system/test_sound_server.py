"""Real capture without hardware: PulseAudio as a user's daemon of its own, a null sink as the sound card.

What `paplay` plays into the sink comes back through ALSA and PortAudio as a microphone. Unloading the sink is
unplugging the card; stopping the daemon is a driver that hangs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from daemons import Template, asd
from scipy.signal import butter, sosfilt

from asd_agent import config
from asd_agent.capture import list_devices, open_source
from asd_agent.capture.live import LiveSource, Patience
from asd_agent.types import Block

pytestmark = pytest.mark.system

RATE = 48_000
LIMIT_S = 60.0
WATCHDOG_S = 2.0
PATIENCE = Patience(start_s=20, stall_s=WATCHDOG_S, healthy_s=2, backoff_s=0.2, backoff_max_s=1.0)
MICROPHONES = Path(__file__).parents[2] / "docs" / "microphone.md"
ASOUNDRC = "pcm.machine {\n type pulse\n device mach.monitor\n}\n"


class SoundServer:
    def __init__(self, home: Path, environ: dict[str, str]) -> None:
        self._home, self._environ = home, environ
        self._sink = ""
        self.process = subprocess.Popen(
            ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--load=module-native-protocol-unix"],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + LIMIT_S
        while subprocess.run(["pactl", "info"], env=environ, capture_output=True, check=False).returncode:
            assert self.process.poll() is None, "pulseaudio ended"
            assert time.monotonic() < deadline, "pulseaudio does not answer"
            time.sleep(0.1)

    def plug_in(self) -> None:
        self._sink = self.shell(f"pactl load-module module-null-sink sink_name=mach rate={RATE} channels=2").strip()

    def unplug(self) -> None:
        self.shell(f"pactl unload-module {self._sink}")

    def shell(self, commands: str, **variables: str) -> str:
        """What they print."""
        argv, environ = ["sh", "-e", "-c", commands], self._environ | variables
        return subprocess.run(argv, env=environ, stdout=subprocess.PIPE, text=True, check=True).stdout

    def play(self, samples: np.ndarray) -> subprocess.Popen[bytes]:
        path = self._home / "played.wav"
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        return subprocess.Popen(["paplay", "-d", "mach", str(path)], env=self._environ)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SoundServer]:
    missing = [tool for tool in ("pulseaudio", "pactl", "paplay") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (Debian: pulseaudio, pulseaudio-utils, libasound2-plugins)")
    with tempfile.TemporaryDirectory(prefix="asd-pulse-") as folder:  # short: a socket's path is limited
        home = Path(folder)
        (home / "run").mkdir(mode=0o700)
        (home / ".asoundrc").write_text(ASOUNDRC)
        for name in ("PULSE_SERVER", "PULSE_RUNTIME_PATH", "XDG_CONFIG_HOME", "DBUS_SESSION_BUS_ADDRESS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", folder)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
        sound_server = SoundServer(home, dict(os.environ))
        try:
            sound_server.plug_in()
            yield sound_server
        finally:
            sound_server.stop()


@pytest.fixture
def microphone(server: SoundServer) -> Iterator[LiveSource]:
    source = open_source(config.MicrophoneSource(device="machine"), [0, 1], patience=PATIENCE)
    assert isinstance(source, LiveSource)
    with source:
        until(source, lambda: source.status().available)
        yield source


def until(source: LiveSource, wanted: Callable[[], bool]) -> list[Block]:
    blocks = []
    deadline = time.monotonic() + LIMIT_S
    while not wanted():
        assert time.monotonic() < deadline, source.status()
        block = source.read(0.1)
        if block is not None:
            blocks.append(block)
    return blocks


def seconds(source: LiveSource, duration_s: float) -> np.ndarray:
    """Sound without a gap, at least so long. [frames, channels]"""
    blocks: list[Block] = []
    deadline = time.monotonic() + LIMIT_S
    while sum(len(b.samples) for b in blocks) < duration_s * RATE:
        assert time.monotonic() < deadline, source.status()
        block = source.read(0.1)
        if block is not None:
            assert not block.gap
            blocks.append(block)
    return np.concatenate([b.samples for b in blocks])


def tones() -> np.ndarray:
    """A minute of 1 kHz left and 3 kHz right, amplitude 0.25."""
    t = np.arange(60 * RATE) / RATE
    return 0.25 * np.stack([np.sin(2 * np.pi * f * t) for f in (1000, 3000)], axis=1)


def test_what_is_played_is_captured_on_every_channel(server: SoundServer, microphone: LiveSource) -> None:
    player = server.play(tones())
    try:
        while not seconds(microphone, 0.1).any():
            assert player.poll() is None
        seconds(microphone, 1.0)  # let it settle
        started = time.monotonic()
        x = seconds(microphone, 4.0)[: 4 * RATE]
        assert time.monotonic() - started > 3  # paced by the card
    finally:
        player.terminate()
        player.wait()
    assert microphone.rate_hz == RATE
    assert x.shape == (4 * RATE, 2)
    assert x.dtype == np.float32
    for channel, f in zip(x.T, (1000, 3000), strict=True):
        spectrum = np.abs(np.fft.rfft(channel))
        assert np.argmax(spectrum) == f * 4
        assert spectrum[f * 4] ** 2 > 0.9999 * np.sum(spectrum**2)  # no sample is missing
        assert np.std(channel) == pytest.approx(0.25 / np.sqrt(2), rel=0.02)
    assert microphone.status().restarts == 0


def test_unplugged_it_is_unavailable_and_plugged_in_again_it_goes_on(
    server: SoundServer, microphone: LiveSource
) -> None:
    server.unplug()
    started = time.monotonic()
    until(microphone, lambda: not microphone.status().available)
    assert time.monotonic() - started < WATCHDOG_S + 3
    until(microphone, lambda: microphone.status().restarts >= 3)
    status = microphone.status()
    assert not status.available
    assert "machine" in status.detail
    server.plug_in()
    blocks = until(microphone, lambda: microphone.status().available and microphone.status().gaps == 1)
    assert blocks[-1].gap
    assert blocks[-1].start_frame == 0
    assert seconds(microphone, 0.5).shape[1] == 2  # and no second gap


def test_a_driver_that_hangs_is_left_behind_by_its_child(server: SoundServer, microphone: LiveSource) -> None:
    child = microphone.child_pid
    assert child is not None
    server.process.send_signal(signal.SIGSTOP)
    until(microphone, lambda: microphone.status().restarts == 1)
    assert "no frames for 2 s" in microphone.status().detail
    assert not Path(f"/proc/{child}").exists()
    server.process.send_signal(signal.SIGCONT)
    until(microphone, lambda: microphone.status().available and microphone.status().gaps == 1)


def test_the_card_is_listed_by_its_name(server: SoundServer) -> None:
    (machine,) = [device for device in list_devices() if device.name == "machine"]
    assert machine.rate_hz == RATE
    assert machine.channels >= 2
    assert machine.busy_by == ""


def test_two_cards_become_a_machine_and_its_reference_as_the_documentation_says(
    server: SoundServer, tmp_path: Path
) -> None:
    """The commands and the configuration are those of docs/microphone.md."""
    section = MICROPHONES.read_text().split("## A reference on a sound card of its own")[1].split("\n## ")[0]
    (commands,) = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    (settings,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    for name, side in (("machine", "front-left"), ("room", "front-right")):  # two cards, of one channel each
        server.shell(
            f"pactl load-module module-remap-source source_name={name} master=mach.monitor channels=1 "
            f"master_channel_map={side} channel_map=mono remix=no"
        )
    join = "\n".join(line for line in commands.splitlines() if "=alsa_input" not in line)
    server.shell(join, MACHINE="machine", ROOM="room")
    (documented,) = yaml.safe_load(settings)["machines"]
    path = tmp_path / "agent.yaml"
    Template.configure(path, [documented | {"window_s": 2.0, "hop_s": 0.5}], tmp_path / "state")
    machine, noise = np.random.default_rng(0).standard_normal((2, 60 * RATE)) * 0.05
    room = 4.5 * sosfilt(butter(4, 300, fs=RATE, output="sos"), noise)  # low: the loopbacks' rates vary a little
    player = server.play(np.stack([machine + 0.7 * room, room], axis=1))
    try:
        done = asd("calibrate", "-c", path, documented["id"], "--duration", "8s", "--json")
    finally:
        player.terminate()
        player.wait()
    assert done.returncode == 0, done.stderr
    (fact,) = [line for line in json.loads(done.stdout)["report"]["facts"] if "reference microphone explains" in line]
    explained = re.search(r"(\d+)%", fact)
    assert explained is not None
    power = np.var(0.7 * room), np.var(machine) * 16_000 / RATE  # the encoder hears a third of the white noise
    assert int(explained[1]) == pytest.approx(100 * power[0] / sum(power), abs=12)
