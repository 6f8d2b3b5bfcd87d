from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.capture.pcm import decode
from asd_agent.config.model import QualityLimits
from asd_agent.types import Cause, Quality, Samples, Window
from asd_agent.windowing.quality import assess, clipped_share

RATE = 16_000
N = 2 * RATE


def judged(x: object, rate_hz: int = RATE, window_s: float | None = None, gap: bool = False) -> Quality:
    samples: Samples = np.ascontiguousarray(x, np.float32)
    window = Window(samples, rate_hz, {}, 0, 0, 0.0, 0.0, gap=gap)
    return assess(window, len(samples) / rate_hz if window_s is None else window_s, QualityLimits())


def noise(level: float = 0.1, n: int = N, seed: int = 0) -> Samples:
    return (level * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def tone(f: float, amplitude: float = 0.5, rate_hz: int = RATE, phase: float = 0.0) -> Samples:
    t = np.arange(2 * rate_hz) / rate_hz
    return (amplitude * np.sin(2 * np.pi * f * t + phase)).astype(np.float32)


def quantised(x: Samples, bits: int) -> Samples:
    return (np.round(x * 2 ** (bits - 1)) / 2 ** (bits - 1)).astype(np.float32)


def test_ordinary_sound_is_assessable_with_its_levels() -> None:
    quality = judged(noise(0.1) + np.float32(0.01))
    assert quality.assessable
    assert quality.level_dbfs == pytest.approx(-20, abs=0.1)
    assert quality.dc == pytest.approx(0.01, abs=0.002)
    assert 0.3 < quality.peak < 0.6
    assert quality.clipped == 0


@pytest.mark.parametrize(
    ("x", "reasons"),
    [
        (np.zeros(N), ("silence",)),
        (noise(1e-5), ("silence",)),
        (np.full(N, 0.3), ("silence", "flat", "dc")),
        (noise(0.1) + 0.4, ("dc",)),
        (np.where(np.arange(N) < 0.15 * N, 0, noise()), ("flat",)),
        (np.where(np.arange(N) < 0.15 * N, 0.2, noise()), ("flat",)),
        (np.where(np.arange(N) % 8000 < 1600, noise(1e-5), noise()), ("flat",)),
        (np.where(np.arange(N) == 77, np.nan, noise()), ("nan",)),
        (np.where(np.arange(N) == 77, -np.inf, noise()), ("nan",)),
        (np.where(np.arange(N) == 77, 3e38, noise()), ("nan",)),
        (np.full(N, np.nan), ("nan", "silence")),
        (np.clip(noise(0.3), -0.5, 0.5), ("clipping",)),
        (np.clip(tone(120, 1.4), -1, 1), ("clipping",)),
    ],
)
def test_what_cannot_be_judged_says_why(x: Samples, reasons: tuple[str, ...]) -> None:
    assert judged(x).causes == reasons


def test_gap_and_short() -> None:
    assert judged(noise(), gap=True).causes == ("gap",)
    assert judged(noise(), window_s=2.001).causes == ("short",)
    assert judged(noise(), window_s=2.00001).causes == ()  # less than a sample
    assert judged(np.zeros(0), window_s=2.0, gap=True).causes[:2] == ("gap", "short")


def test_a_low_level_on_a_high_offset_is_measured_exactly() -> None:
    assert judged(noise(1e-4) + np.float32(0.5)).level_dbfs == pytest.approx(-80, abs=0.2)


@pytest.mark.parametrize("rail", [1.0, 0.7, 0.05])
@pytest.mark.parametrize("bits", [16, 24])
def test_flat_tops_are_clipping_wherever_the_rail_lies(rail: float, bits: int) -> None:
    for wave in (tone(100), noise(0.35), tone(431) + noise(0.02)):
        clipped = rail * np.clip(wave / (0.6 * np.abs(wave).max()), -1, 1)
        assert "clipping" in judged(quantised(clipped.astype(np.float32), bits)).causes


def test_one_sided_clipping_is_found() -> None:
    assert judged(np.minimum(noise(0.3), 0.5)).causes == ("clipping",)


@settings(max_examples=60, deadline=None)
@given(
    f=st.floats(15, 7900),
    amplitude=st.floats(0.01, 0.97),
    phase=st.floats(0, 6.28),
    bits=st.sampled_from([8, 16, 24, 32]),
    rate_hz=st.sampled_from([16_000, 48_000]),
)
def test_a_pure_tone_is_not_clipping(f: float, amplitude: float, phase: float, bits: int, rate_hz: int) -> None:
    x = tone(f, amplitude, rate_hz, phase)
    assert clipped_share(x if bits == 32 else quantised(x, bits)) == 0


def test_a_constant_sweep_and_a_triangle_are_not_clipping() -> None:
    t = np.arange(N) / RATE
    assert clipped_share((0.5 * np.sin(np.pi * 3800 * t**2)).astype(np.float32)) == 0
    assert clipped_share((0.5 * np.abs((t * 50.3) % 2 - 1)).astype(np.float32)) == 0


@settings(max_examples=30, deadline=None)
@given(level=st.floats(3e-4, 0.2), bits=st.sampled_from([8, 16, 24, 32]), seed=st.integers(0, 99))
def test_noise_at_any_depth_is_not_clipping(level: float, bits: int, seed: int) -> None:
    x = noise(level, seed=seed)
    assert clipped_share(x if bits == 32 else quantised(x, bits)) < 1e-3


def test_impacts_with_quiet_pauses_are_not_flat() -> None:
    x = noise(1e-4)  # 16-bit background 60 dB below the impacts
    x[::4000] += 0.9
    assert judged(quantised(x, 16)).assessable


def test_the_real_clipped_compressor_and_the_normal_recordings(shared_dir: Path) -> None:
    def reasons(folder: str) -> list[tuple[str, ...]]:
        found = []
        for path in sorted((shared_dir / "data" / folder).glob("*.flac")):
            x, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
            found += [judged(channel, rate_hz).causes for channel in x.T]
        assert found
        return found

    assert set(reasons("compressor/run_clipped")) == {("clipping",)}
    for folder in ("compressor/rest", "compressor/run", "compressor/off", "bldc_m1/healthy", "eight_channel"):
        assert set(reasons(folder)) == {()}, folder


@pytest.mark.parametrize("sample_format", ["s16le", "s24le", "s32le"])
@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_no_sound(sample_format: str, seed: int) -> None:
    data = np.random.default_rng(seed).bytes(12 * RATE)
    quality = judged(decode(data, sample_format, 1)[:, 0])
    assert Cause.RANDOM in quality.causes


def test_a_pipe_that_lost_its_place_is_no_sound() -> None:
    data = (noise(0.2, 4 * RATE) * 32767).astype("<i2").tobytes()
    assert Cause.RANDOM in judged(decode(data[1:-1], "s16le", 1)[:, 0]).causes


@pytest.mark.parametrize("x", [noise(0.57), tone(440, 0.81), np.sign(tone(440)) * np.float32(0.57)])
def test_loud_sound_is_sound(x: Samples) -> None:
    assert Cause.RANDOM not in judged(np.clip(x, -1, 1)).causes
