from __future__ import annotations

import numpy as np
import pytest

from asd_agent import config
from asd_agent.capture.simulate import FAULTS, SimulatedMachine, fault_signal, machine_blocks, mix_at
from asd_agent.types import Samples


def sound(seconds: float, **options: object) -> Samples:
    source = config.SimulatedSource(duration_s=seconds, **options)  # type: ignore[arg-type]
    return np.concatenate([b.samples[:, 0] for b in machine_blocks(source)])


def rms(x: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def db(ratio: float) -> float:
    return float(20 * np.log10(ratio))


def test_the_seed_determines_everything() -> None:
    faults = [config.Fault(kind=kind, level_db=-3, at_s=1) for kind in FAULTS]  # type: ignore[arg-type]
    one, two = (sound(3, seed=7, faults=faults) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, sound(3, seed=8, faults=faults))


def test_level_length_and_blocks() -> None:
    blocks = list(machine_blocks(config.SimulatedSource(duration_s=20.1, level_dbfs=-30)))
    x = np.concatenate([b.samples for b in blocks])
    assert x.shape == (321_600, 1)
    assert x.dtype == np.float32
    assert db(rms(x)) == pytest.approx(-30, abs=0.5)
    assert [b.start_frame for b in blocks[:3]] == [0, 4000, 8000]
    assert [b.last for b in blocks] == [False] * 80 + [True]


def test_a_seam_between_blocks_cannot_be_heard() -> None:
    source = config.SimulatedSource(faults=[config.Fault(kind=kind) for kind in FAULTS])  # type: ignore[arg-type]
    small, large = SimulatedMachine(source), SimulatedMachine(source)
    pieces = np.concatenate([small.take(n) for n in (1000, 3000, 17, 3983)])
    np.testing.assert_allclose(pieces, large.take(8000), atol=1e-6)


def test_the_shaft_its_harmonics_and_the_gear_mesh_are_there() -> None:
    x = sound(8, speed_change=0, shaft_hz=25, gear_teeth=20)
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x))))  # 0.125 Hz a bin
    for f in (25, 50, 75, 475, 500, 525, 1000):
        around = np.median(spectrum[(f - 10) * 8 : (f + 10) * 8])
        assert spectrum[f * 8] > 10 * around, f


def test_speed_and_load_change_slowly() -> None:
    def swing(load_change: float) -> float:
        parts = np.split(sound(60, load_change=load_change, speed_change=0), 30)
        return max(map(rms, parts)) / min(map(rms, parts))

    assert swing(0.5) > 1.2 * swing(0)
    fast = sound(60, load_change=0, speed_change=0.05, shaft_hz=25, gear_teeth=0)
    peaks = [np.argmax(np.abs(np.fft.rfft(p * np.hanning(len(p)), 1 << 17))) for p in np.split(fast, 30)]
    assert max(peaks) - min(peaks) >= 4  # of 0.12 Hz; 5 % of 25 Hz swing by up to 2.5 Hz


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("rate_hz", [8000, 22_050])
def test_a_fault_appears_on_time_at_its_level(kind: str, rate_hz: int) -> None:
    fault = config.Fault(kind=kind, level_db=-8, at_s=4, until_s=54)  # type: ignore[arg-type]
    options = {"rate_hz": rate_hz, "load_change": 0.0, "gear_teeth": 0}
    without, with_fault = sound(58, **options), sound(58, faults=[fault], **options)
    added = with_fault - without
    assert not added[: 4 * rate_hz].any()
    assert db(rms(added[4 * rate_hz : 54 * rate_hz]) / rms(without)) == pytest.approx(-8, abs=1.0)
    assert rms(added[55 * rate_hz :]) < 1e-6


@pytest.mark.parametrize("kind", FAULTS)
def test_fault_signals_have_unit_level_and_the_asked_seed(kind: str) -> None:
    one, again, other = (fault_signal(kind, 48_000, 16_000, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one.dtype == np.float32
    assert rms(one) == pytest.approx(1, abs=1e-3)
    np.testing.assert_array_equal(one, again)
    if kind not in ("imbalance", "squeal"):  # those follow the shaft alone
        assert not np.allclose(one, other)


def test_the_kinds_sound_as_they_are_called() -> None:
    rng = np.random.default_rng(0)
    x = {kind: fault_signal(kind, 160_000, 16_000, rng, shaft_hz=25) for kind in FAULTS}
    kurtosis = {kind: float(np.mean(x[kind] ** 4)) for kind in FAULTS}
    assert kurtosis["knocks"] > kurtosis["bearing"] > 6 > 4 > kurtosis["hiss"] > kurtosis["imbalance"]
    envelope = np.abs(x["bearing"]) - np.abs(x["bearing"]).mean()
    order = np.argmax(np.abs(np.fft.rfft(envelope))[200:2000]) + 200
    assert order / 10 / 25 == pytest.approx(3.585, rel=0.02)  # 0.1 Hz a bin
    hiss = np.abs(np.fft.rfft(x["hiss"])) ** 2
    assert hiss[20_000:70_400].sum() > 0.98 * hiss.sum()  # 2 to 7.04 kHz


def test_mix_at_sets_the_level_against_the_machine() -> None:
    rng = np.random.default_rng(0)
    machine = (0.03 * rng.standard_normal(16_000) + 0.2).astype(np.float32)
    fault = 17 * fault_signal("hiss", 16_000, 16_000, rng)
    added = mix_at(machine, fault, -5.0) - machine
    assert db(rms(added) / rms(machine - machine.mean())) == pytest.approx(-5, abs=0.01)
    with pytest.raises(ValueError, match="silent"):
        mix_at(machine, np.zeros(16_000, np.float32), -5.0)


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown fault 'rust'"):
        fault_signal("rust", 100, 16_000, np.random.default_rng(0))
