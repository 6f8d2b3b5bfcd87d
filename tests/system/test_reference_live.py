"""A machine with a reference microphone from the first minute: a daemon on a source of two channels that hears, is
calibrated live, judges, and reports what becomes of the reference."""

from __future__ import annotations

import json

import numpy as np
import pytest
from daemons import Site, machine, machine_sound

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.scoring.detectors import SUBTRACTED

pytestmark = pytest.mark.system
SECONDS = 40


def two_microphones(seed: int, *faults: config.Fault, room_db: float = -20) -> np.ndarray:
    """[frames, 2]: the machine, 12 dB quieter at the reference, and a room as loud at both."""
    rng = np.random.default_rng(seed)
    near = machine_sound(SECONDS, *faults, seed=seed)
    room = rng.standard_normal(len(near)) * near.std() * 10 ** (room_db / 20)
    noise = 0.02 * near.std() * rng.standard_normal((2, len(near)))
    return np.stack([near + room, 0.25 * np.roll(near, 40) + np.roll(room, -30)], axis=1) + noise.T


@pytest.fixture
def two_channels(site: Site) -> Site:
    normal = two_microphones(1)
    sounds = {
        "normal2": normal,
        "faulty2": two_microphones(2, config.Fault(kind="bearing", level_db=0)),
        "loud_room": two_microphones(3, room_db=6),
        "too_close": np.stack([normal[:, 0], 0.8 * normal[:, 0]], axis=1),
        "deaf": normal * [1, 0],
    }
    for name, samples in sounds.items():
        (site.folder / "sound" / f"{name}.raw").write_bytes((samples * 32767).clip(-32768, 32767).astype("<i2"))
    site.play("normal2")
    site.configure(machine(site.folder, channels=2, reference={"channel": 1}))
    return site


def test_calibrated_live_with_two_channels_it_judges_with_the_reference(two_channels: Site) -> None:
    site = two_channels
    site.start()
    # The template's baseline is one of one microphone.
    assert "calibrate again" in site.until_reason("calibrated without the reference microphone")
    done = site.cli("calibrate", "m", "--duration", "40s", "--promote", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    assert not [line for line in report["concerns"] if "reference" in line]
    baseline = BaselineStore(site.state_dir, "m").active()
    assert baseline is not None
    assert baseline.manifest.knows_room
    assert any(name.endswith(SUBTRACTED) for name in baseline.manifest.states[0].detectors)
    site.more_windows(12)
    site.until(state="normal", chain="good")

    site.play("loud_room")  # longer than an alarm needs; what the reference hears louder is no fault
    site.more_windows(30)
    assert site.status()["alarm"]["level"] == "normal"
    assert "louder in the reference microphone" in json.dumps(site.status())
    site.play("faulty2")
    site.until(level="danger")
    assert site.kinds().count("raised") == 1


def test_health_tells_a_reference_that_is_deaf_or_hears_the_machine(two_channels: Site) -> None:
    two_channels.start()
    two_channels.play("too_close")
    assert "move it away" in two_channels.until_reason("the reference microphone hears the machine too well")
    two_channels.play("deaf")
    two_channels.until_reason("the reference microphone is silent or missing")
