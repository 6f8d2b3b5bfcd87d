from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.config.kinematics import Mechanism
from asd_agent.mechanism import Analyser
from asd_agent.mechanism.bands import band_of, bands
from asd_agent.mechanism.cepstrum import cepstrum
from asd_agent.mechanism.envelope import envelope, periods
from asd_agent.mechanism.kurtosis import frame_power, kurtogram, spectral_kurtosis
from asd_agent.mechanism.shape import level, shape
from asd_agent.mechanism.spectrum import Floor, fast_length, transform
from asd_agent.mechanism.wavelet import leaves, wavelet
from mechanism_machine import CONFIG, RATE_HZ, Faults, machine

T = np.arange(16_000 * 4) / 16_000


def noise(seed: int = 0, n: int = len(T)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def tone(hz: float) -> np.ndarray:
    return np.sin(2 * np.pi * hz * T + 0.3).astype(np.float32)


def impacts(hz: float, ring_hz: float = 3000, jitter: float = 0.01) -> np.ndarray:
    steps = 1 + jitter * np.random.default_rng(1).standard_normal(int(hz * 3.9))
    hits = np.zeros(len(T))
    hits[(np.cumsum(steps) / hz * 16_000).astype(int)] = 1
    t = np.arange(400) / 16_000
    return np.convolve(hits, np.exp(-600 * t) * np.sin(2 * np.pi * ring_hz * t))[: len(T)].astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10**7))
def test_fast_length_is_the_largest_smooth_number(n):
    best = fast_length(n)
    rest = best
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    assert rest == 1
    assert best <= n < 2 * best


def test_hann_power_is_that_of_a_tapered_transform():
    spectrum = transform(noise(), 16_000)
    n = len(spectrum.samples)
    taper = 1 - np.cos(2 * np.pi * np.arange(n) / n)
    expected = np.abs(np.fft.rfft(spectrum.samples * taper)) ** 2
    np.testing.assert_allclose(spectrum.power[1:-1], expected[1:-1], rtol=2e-2, atol=1.0)


def test_floor_ignores_lines():
    values = np.zeros(1000, np.float32)
    values[::20] = 9
    assert np.abs(Floor.of(values, 50).at(np.arange(1000))).max() == 0


def test_shape_of_a_sine_and_of_noise():
    sine, gauss = shape(transform(tone(300), 16_000)), shape(transform(noise(), 16_000))
    assert sine["shape.crest"] == pytest.approx(np.log(np.sqrt(2)), abs=0.02)
    assert sine["shape.kurtosis"] == pytest.approx(np.log(1.5), abs=0.02)
    assert sine["shape.shape_factor"] == pytest.approx(np.log(np.pi / 2 / np.sqrt(2)), abs=0.02)
    assert gauss["shape.kurtosis"] == pytest.approx(np.log(3), abs=0.05)


def test_crest_does_not_grow_with_the_window():
    long, short = shape(transform(noise(n=160_000), 16_000)), shape(transform(noise(n=32_000), 16_000))
    assert long["shape.crest"] == pytest.approx(short["shape.crest"], abs=0.05)


def test_one_knock_moves_the_largest_crest_and_not_the_median():
    x = noise()
    calm = shape(transform(x, 16_000))
    x[20_000:20_020] += 30
    knocked = shape(transform(x, 16_000))
    assert knocked["shape.crest_max"] > calm["shape.crest_max"] + 0.5
    assert knocked["shape.crest"] == pytest.approx(calm["shape.crest"], abs=0.2)


def test_level_follows_the_gain_and_nothing_else_does():
    assert level(10 * noise())["level.rms_db"] == pytest.approx(level(noise())["level.rms_db"] + 20, abs=1e-3)
    assert level(tone(100))["level.peak_db"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("hz", [60, 500, 3100, 7000])
def test_a_tone_rises_in_its_band_and_makes_it_tonal(hz):
    calm, toned = bands(transform(noise(), 16_000)), bands(transform(noise() + 0.5 * tone(hz), 16_000))
    rise = {name: toned[name] - calm[name] for name in calm if name.endswith(".level")}
    name = max(rise, key=lambda n: rise[n])
    low, high = band_of(name)
    assert low <= hz <= high
    assert toned[name.replace("level", "flatness")] < calm[name.replace("level", "flatness")] - 0.3


@pytest.mark.parametrize("leaf", range(8))
def test_wavelet_leaves_are_in_the_order_of_frequency(leaf):
    nodes = leaves(transform(tone(500 + 1000 * leaf), 16_000))
    assert len(nodes) == 8
    assert int(np.argmax((nodes**2).sum(axis=1))) == leaf


def test_wavelet_keeps_the_energy():
    spectrum = transform(noise(), 16_000)
    assert (leaves(spectrum) ** 2).sum() == pytest.approx((spectrum.samples**2).sum(), rel=1e-3)


def test_a_burst_lowers_the_entropy_over_time_of_its_leaf():
    x = noise()
    calm = wavelet(transform(x, 16_000))
    x[30_000:30_200] += 10 * np.sin(2 * np.pi * 3200 * T[:200])
    burst = wavelet(transform(x, 16_000))
    growth = {n: burst[n] - calm[n] for n in calm if n.endswith(".burst")}
    low, high = band_of(max(growth, key=lambda n: growth[n]))
    assert low <= 3200 <= high


def test_spectral_kurtosis_of_noise_a_tone_and_impacts():
    flat = spectral_kurtosis(frame_power(transform(noise(), 16_000)))
    assert abs(np.mean(flat[2:-2])) < 0.1
    toned = spectral_kurtosis(frame_power(transform(0.01 * noise() + tone(2000), 16_000)))
    assert toned[32] == pytest.approx(-1, abs=0.05)
    struck = spectral_kurtosis(frame_power(transform(0.1 * noise() + 5 * impacts(7), 16_000)))
    assert struck[48] > 5  # 3 kHz


def test_kurtogram_finds_the_band_that_rings():
    low, high = kurtogram(transform(noise() + 6 * impacts(11, ring_hz=5000), 16_000)).best_hz
    assert low <= 5000 <= high
    assert high - low <= 4000


def test_cepstrum_peaks_at_the_period_of_a_line_family():
    lines = sum(tone(31 * k) for k in range(1, 60)) / 20
    calm, family = cepstrum(transform(noise(), 16_000), 31.0), cepstrum(transform(noise() + lines, 16_000), 31.0)
    assert family["cepstrum.shaft"] > calm["cepstrum.shaft"] + 0.7
    assert max(family, key=lambda n: family[n] - calm[n]) in ("cepstrum.shaft", "cepstrum.20-40ms.peak")


@pytest.mark.parametrize("hz", [23.0, 89.4, 161.0])
def test_the_envelope_has_a_line_at_the_rate_of_impacts(hz):
    env = envelope(transform(noise() + 4 * impacts(hz), 16_000), 700)
    start = int(3 / env.df_hz)
    found = (start + int(np.argmax(env.full[start:]))) * env.df_hz
    assert found / round(found / hz) == pytest.approx(hz, rel=0.01)
    tile = int(np.argmax(env.tiles[:, round(hz / env.df_hz)]))
    low, high = env.tile_band(tile)
    assert low <= 3000 <= high


def test_a_clockwork_of_impacts_shows_in_the_cepstrum():
    """Without any jitter it is a line spectrum, which pre-whitening removes."""
    calm, struck = (cepstrum(transform(x, 16_000)) for x in (noise(), noise() + 20 * impacts(40, jitter=0.0)))
    assert struck["cepstrum.20-40ms.peak"] > calm["cepstrum.20-40ms.peak"] + 1


def test_the_envelope_of_noise_is_exponential():
    env = envelope(transform(noise(n=160_000), 16_000), 700)
    for values in (env.full[50:], env.tiles[:, 50:]):
        assert values.mean() == pytest.approx(1, abs=0.1)
        assert (values > 7).mean() == pytest.approx(np.exp(-7), abs=2e-3)


def test_periods_grow_in_the_octave_of_the_rate_only():
    calm, struck = (periods(envelope(transform(x, 16_000), 700)) for x in (noise(), noise() + 4 * impacts(40)))
    assert struck["envelope.32-64.line"] > calm["envelope.32-64.line"] + 2
    assert struck["envelope.32-64.tile_line"] > calm["envelope.32-64.tile_line"] + 2
    assert struck["envelope.8-16.line"] < calm["envelope.8-16.line"] + 1


ANALYSER = Analyser(CONFIG, RATE_HZ)
SOUND = machine(3, Faults(inner=1.0), seconds=4)
PLAIN = ANALYSER.indicators(SOUND).values


@settings(max_examples=10, deadline=None)
@given(st.floats(-60, 60), st.floats(-0.5, 0.5), st.sampled_from([-1.0, 1.0]))
def test_gain_offset_and_sign_change_only_the_level(gain_db, offset, sign):
    x = (sign * 10 ** (gain_db / 20) * (SOUND + offset * SOUND.std())).astype(np.float32)
    changed = ANALYSER.indicators(x).values
    assert changed.keys() == PLAIN.keys()
    for name, value in PLAIN.items():
        if not name.startswith("level."):
            assert changed[name] == pytest.approx(value, abs=0.02), name


@pytest.mark.parametrize("config", [Mechanism(), CONFIG])
@pytest.mark.parametrize(("rate_hz", "seconds"), [(4000, 0.5), (8000, 1), (16_000, 10), (44_100, 2), (192_000, 2)])
def test_every_rate_and_length_gives_finite_numbers(config, rate_hz, seconds):
    found = Analyser(config, rate_hz).indicators(noise(n=int(rate_hz * seconds)))
    assert not found.gates
    assert 100 < len(found.values) < 260
    assert np.isfinite(list(found.values.values())).all()
    assert {n.partition(".")[0] for n in found.values} >= {
        "level", "shape", "bands", "wavelet", "kurtosis", "cepstrum", "envelope",
    }  # fmt: skip


def clipped() -> np.ndarray:
    return np.clip(2 * noise(), -1, 1)


def stopping() -> np.ndarray:
    return noise() * np.exp(-3 * T / T[-1] * 2).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "gate"),
    [
        (np.full(16_000, np.nan, np.float32), "nan"),
        (np.append(noise(n=15_999), np.float32(np.inf)), "nan"),
        (np.zeros(16_000, np.float32), "flat"),
        (np.full(16_000, 0.3, np.float32), "flat"),
        (noise(n=100), "short"),
        (np.zeros(0, np.float32), "short"),
        (clipped(), "clipping"),
        (stopping(), "transient"),
    ],
)
def test_what_cannot_be_judged_says_why(samples, gate):
    found = Analyser(Mechanism(), 16_000).indicators(samples)
    assert found.gates == (gate,)
    assert found.values[f"gate.{gate}"] == 1.0
    assert np.isfinite(list(found.values.values())).all()


@pytest.mark.parametrize("scale", [1e-15, 1e30])
def test_absurd_gains_do_not_overflow(scale):
    values = Analyser(Mechanism(), 16_000).indicators(noise() * np.float32(scale)).values
    assert np.isfinite(list(values.values())).all()
    assert values["shape.kurtosis"] == pytest.approx(np.log(3), abs=0.05)


def test_a_pure_tone_and_a_quantised_whisper_are_not_clipping():
    analyser = Analyser(Mechanism(), 16_000)
    assert analyser.indicators((np.round(tone(100) * 32767) / 32768).astype(np.float32)).gates == ()
    assert analyser.indicators((np.round(noise() * 2) / 32768).astype(np.float32)).gates == ()


def test_the_hot_path_loads_neither_scipy_signal_nor_matplotlib():
    code = (
        "import sys, numpy as np; from asd_agent.config.kinematics import Mechanism;"
        "from asd_agent import mechanism as m; from asd_agent.mechanism.diagnose import diagnose;"
        "a = m.Analyser(Mechanism(), 16000); r = np.random.default_rng(0);"
        "w = [a.indicators(r.standard_normal(16000).astype('f')).values for _ in range(10)];"
        "m.MechanismBaseline.fit(w).judge(w[0]); diagnose(r.standard_normal(16000).astype('f'), 16000, Mechanism());"
        "print([n for n in ('scipy.signal', 'matplotlib', 'torch', 'scipy.stats', 'rich') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
