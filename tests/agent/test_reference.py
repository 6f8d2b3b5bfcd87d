"""What the far microphone explains is taken out, and nothing else: filters, simulated rooms, eight real channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent import config
from asd_agent.capture.simulate import SimulatedMachine, fault_signal
from asd_agent.windowing.reference import TOO_COHERENT, subtract

RATE = 16_000


def noise(seed: int, seconds: float = 8.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)


def db(x: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(x, dtype=np.float64))))


def test_what_comes_through_a_short_filter_is_gone() -> None:
    far = noise(0)
    path = np.random.default_rng(1).standard_normal(60) * 0.9 ** np.arange(60)
    heard = np.convolve(far, path)[: len(far)]
    found = subtract(heard, far)
    assert db(found.samples) < db(heard) - 15
    assert found.coherence > 0.95


def test_what_the_far_microphone_does_not_hear_stays() -> None:
    near, far = noise(0), noise(1)
    found = subtract(near, far)
    assert db(found.samples - near) < db(near) - 20
    assert found.coherence < 0.02


def test_silence_in_the_far_microphone_changes_nothing() -> None:
    near = noise(0, 1.0)
    found = subtract(near, np.zeros_like(near))
    np.testing.assert_allclose(found.samples, near, atol=1e-6)
    assert found.coherence == 0
    assert subtract(np.zeros(5000), near[:5000]).coherence == 0


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9000), st.floats(0.01, 100), st.floats(0.01, 100), st.integers(0, 99))
def test_gains_pass_through_and_the_length_is_kept(n: int, near_gain: float, far_gain: float, seed: int) -> None:
    near, far = noise(seed)[:n], noise(seed + 1000)[:n] + 0.5 * noise(seed)[:n]
    once, scaled = subtract(near, far), subtract(near_gain * near, far_gain * far)
    assert len(once.samples) == n
    np.testing.assert_allclose(scaled.samples, near_gain * once.samples, atol=1e-4 * near_gain, rtol=1e-3)
    assert scaled.coherence == pytest.approx(once.coherence, abs=1e-6)


def test_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="equal length"):
        subtract(np.zeros(10), np.zeros(11))


def in_room(sources: dict[str, tuple[list[float], np.ndarray]]) -> dict[str, np.ndarray]:
    """Sounds at places in a hall of 8 x 6 x 3 m -> each as heard [near, far]; near is 0.5 m from the machine."""
    room_acoustics = pytest.importorskip("pyroomacoustics", reason="the extra dev has it")
    heard = {}
    for name, (place, sound) in sources.items():
        room = room_acoustics.ShoeBox(
            [8, 6, 3], fs=RATE, materials=room_acoustics.Material(0.6), max_order=8, air_absorption=True
        )
        room.add_source(place, signal=sound)
        room.add_microphone_array(np.array([[1.5, 1.5, 1.0], [5.5, 4.0, 1.5]]).T)
        room.simulate()
        heard[name] = room.mic_array.signals[:, : len(sound)]
    return heard


def test_in_a_simulated_room_the_nuisance_goes_and_machine_and_fault_stay() -> None:
    source = config.SimulatedSource(rate_hz=RATE, seed=3)
    machine = SimulatedMachine(source).take(8 * RATE)
    fault = fault_signal("bearing", 8 * RATE, RATE, np.random.default_rng(0))
    heard = in_room({
        "machine": ([1.2, 1.2, 0.8], machine),
        "fault": ([1.2, 1.2, 0.8], fault),
        "nuisance": ([6.0, 4.8, 1.6], noise(5)),
    })  # fmt: skip
    level = {name: db(signals[0]) for name, signals in heard.items()}
    normal = heard["machine"]
    loud = heard["nuisance"] * 10 ** ((level["machine"] + 5 - level["nuisance"]) / 20)
    weak = heard["fault"] * 10 ** ((level["machine"] - 10 - level["fault"]) / 20)
    disturbed = normal + loud
    left = subtract(*disturbed).samples
    assert db(left - normal[0]) < db(loud[0]) - 2.5  # of the nuisance, and of what is taken from the machine with it
    faulty = subtract(*(disturbed + weak)).samples
    assert db(faulty - left) == pytest.approx(db(weak[0]), abs=1.0)  # the fault is still there


def test_eight_microphones_around_one_fan_hear_the_machine_too_well_or_not(shared_dir: Path) -> None:
    """Coherence of real microphones centimetres to decimetres apart: a share between none and all."""
    x, _ = soundfile.read(shared_dir / "data" / "eight_channel" / "fan_0.flac", dtype="float32")
    itself = subtract(x[:, 0], x[:, 0]).coherence
    others = [subtract(x[:, 0], x[:, channel]).coherence for channel in range(1, 8)]
    assert itself > 0.99 > TOO_COHERENT
    assert all(0 < other < itself for other in others)
