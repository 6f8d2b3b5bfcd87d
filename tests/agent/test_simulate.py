from __future__ import annotations

import numpy as np
import pytest

from asd_agent import config
from asd_agent.capture.component_faults import COMPONENT_FAULTS, ComponentFault
from asd_agent.capture.simulate import FAULTS, SimulatedMachine, fault_signal, machine_blocks, mix_at
from asd_agent.types import Samples

KINDS = (*FAULTS, *COMPONENT_FAULTS)


def sound(seconds: float, **options: object) -> Samples:
    source = config.SimulatedSource(duration_s=seconds, **options)  # type: ignore[arg-type]
    return np.concatenate([b.samples[:, 0] for b in machine_blocks(source)])


def rms(x: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def db(ratio: float) -> float:
    return float(20 * np.log10(ratio))


def test_the_seed_determines_everything() -> None:
    faults = [config.Fault(kind=kind, level_db=-3, at_s=1) for kind in KINDS]  # type: ignore[arg-type]
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate_hz", [8000, 22_050])
def test_a_fault_appears_on_time_at_its_level(kind: str, rate_hz: int) -> None:
    fault = config.Fault(kind=kind, level_db=-8, at_s=4, until_s=54)  # type: ignore[arg-type]
    options = {"rate_hz": rate_hz, "load_change": 0.0}
    without, with_fault = sound(58, **options), sound(58, faults=[fault], **options)
    added = with_fault - without
    assert not added[: 4 * rate_hz].any()
    assert db(rms(added[4 * rate_hz : 54 * rate_hz]) / rms(without)) == pytest.approx(-8, abs=1.0)
    assert rms(added[55 * rate_hz :]) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_fault_signals_have_unit_level_and_the_asked_seed(kind: str) -> None:
    one, again, other = (fault_signal(kind, 48_000, 16_000, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one.dtype == np.float32
    assert rms(one) == pytest.approx(1, abs=1e-3)
    np.testing.assert_array_equal(one, again)
    if kind not in ("imbalance", "squeal", "looseness"):  # those follow the shaft alone
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


def test_a_broken_tooth_needs_a_gear() -> None:
    with pytest.raises(ValueError, match="gear_teeth is 0"):
        config.SimulatedSource(gear_teeth=0, faults=[config.Fault(kind="tooth")])


@pytest.mark.parametrize(
    ("kind", "lines_hz"),
    [
        ("blade", (7 * 25, 14 * 25)),
        ("belt", (0.26 * 25, 0.52 * 25)),
        ("rotor_bar", (25 - 5, 25 + 5)),
        ("eccentricity", (105 - 5, 105 + 5)),
        ("electrical", (105,)),
        ("looseness", (12.5, 37.5)),
        ("tooth", (22 * 25, 24 * 25)),
        ("wheel_tooth", (23 * 25 - 23 / 57 * 25, 23 * 25 + 23 / 57 * 25)),
    ],
)
def test_the_lines_of_a_component_lie_where_its_physics_puts_them(kind: str, lines_hz: tuple[float, ...]) -> None:
    """Mains of 52.5 Hz and 4 poles at 25 Hz: the pole pass is 5 Hz."""
    source = config.SimulatedSource(shaft_hz=25, mains_hz=52.5)
    signal = ComponentFault(kind, source, np.random.default_rng(0))
    t = np.arange(20 * source.rate_hz) / source.rate_hz
    power = np.abs(np.fft.rfft(signal.take(25 * t, t) * np.hanning(len(t)))) ** 2
    for hz in lines_hz:
        at = round(hz * 20)
        assert power[at - 2 : at + 3].max() > 0.02 * power.max(), hz
    assert kind not in ("rotor_bar", "eccentricity", "tooth", "wheel_tooth") or _carrier(kind, power) < 0.02


def _carrier(kind: str, power: np.ndarray) -> float:
    hz = {"rotor_bar": 25.0, "eccentricity": 105.0, "tooth": 575.0, "wheel_tooth": 575.0}[kind]
    return float(power[round(hz * 20)] / power.max())


@pytest.mark.parametrize(("kind", "order"), [("cavitation", 7.0), ("surge", 1.0), ("flow", 0.0), ("inner_race", 5.421)])
def test_what_is_modulated_swells_at_its_own_rate(kind: str, order: float) -> None:
    x = fault_signal(kind, 320_000, 16_000, np.random.default_rng(0), shaft_hz=25).astype(float) ** 2
    power = np.abs(np.fft.rfft(x - x.mean())[: 20 * 200]) ** 2  # 0.05 Hz a bin
    if order == 0:
        assert power[20:].max() < 30 * power[20:].mean()
    else:
        assert (np.argmax(power[20:]) + 20) / 20 / 25 == pytest.approx(order, rel=0.005)
