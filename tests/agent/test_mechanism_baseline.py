from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.errors import BaselineError, CalibrationError
from asd_agent.mechanism.baseline import MechanismBaseline, contiguous_folds
from asd_agent.mechanism.regimes import split
from asd_agent.mechanism.statistics import centre_and_scale, log_cauchy_of_groups, log_two_sided_p

ONE_GROUP = np.zeros(1, np.intp)
NAMES = [
    *(f"bands.{i}-{i + 1}Hz.level" for i in range(10)),
    *(f"wavelet.{i}-{i + 1}Hz.burst" for i in range(10)),
    *(f"shape.s{i}" for i in range(6)),
    "level.rms_db",
]


def windows(
    n: int, seed: int = 0, shift: dict[str, float] | None = None, offset: float = 0.0
) -> list[dict[str, float]]:
    """Normal windows: correlated within a family, as real indicators are."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        common = {f: rng.standard_normal() for f in ("bands", "wavelet", "shape", "level")}
        values = {name: 0.5 * common[name.partition(".")[0]] + rng.standard_normal() for name in NAMES}
        out.append({k: v + (shift or {}).get(k, 0.0) for k, v in values.items()})
    return out


def test_p_values_of_later_normal_windows_keep_their_promise():
    """Averaged over calibrations of 40 windows: a calibration that small is itself uncertain."""
    p = []
    for seed in range(10):
        baseline = MechanismBaseline.fit(windows(40, seed), np.arange(40) // 8)
        p += [baseline.judge(w).p_value for w in windows(200, seed + 100)]
    assert np.mean(np.array(p) < 0.05) <= 0.05
    assert np.mean(np.array(p) < 0.01) <= 0.01
    assert np.mean(np.array(p) < 0.2) > 0.05  # and is no wall


def test_a_shift_of_one_indicator_is_found_and_named_both_ways():
    baseline = MechanismBaseline.fit(windows(40))
    for change in (12.0, -12.0):
        verdict = baseline.judge(windows(1, 7, {"bands.3-4Hz.level": change})[0])
        assert verdict.p_value is not None
        assert verdict.p_value < 0.01
        assert verdict.deviations[0].name == "bands.3-4Hz.level"
        assert np.sign(verdict.deviations[0].z) == np.sign(change)
        assert min(verdict.families, key=lambda f: verdict.families[f]) == "bands"


def test_stronger_is_never_less_significant():
    baseline = MechanismBaseline.fit(windows(40))
    base = windows(1, 7)[0]
    p = [baseline.judge(base | {"shape.s1": base["shape.s1"] + step}).p_value for step in (0, 5, 10, 20, 50, 100, 1000)]
    assert p == sorted(p, reverse=True)


def test_the_level_is_kept_apart():
    baseline = MechanismBaseline.fit(windows(40))
    window = windows(1, 7)[0]
    louder = window | {"level.rms_db": 60.0}
    assert baseline.judge(louder).p_value == baseline.judge(window).p_value
    assert baseline.judge(louder).level[0].z > 10


def test_arrays_bring_back_the_same_verdict(tmp_path):
    baseline = MechanismBaseline.fit(windows(40))
    np.savez(tmp_path / "b.npz", **baseline.arrays())
    with np.load(tmp_path / "b.npz", allow_pickle=False) as stored:
        again = MechanismBaseline.from_arrays(dict(stored))
    window = windows(1, 3, {"shape.s0": 8.0})[0]
    assert again.judge(window) == baseline.judge(window)


def test_a_baseline_of_another_format_or_damaged_is_refused():
    arrays = MechanismBaseline.fit(windows(20)).arrays()
    with pytest.raises(BaselineError, match="format 99"):
        MechanismBaseline.from_arrays(arrays | {"format": np.array(99)})
    del arrays["scale"]
    with pytest.raises(BaselineError, match="lacks 'scale'"):
        MechanismBaseline.from_arrays(arrays)


def test_indicators_of_another_rate_are_refused():
    baseline = MechanismBaseline.fit(windows(20))
    with pytest.raises(BaselineError, match="calibrate again"):
        baseline.judge({f"bands.x{i}.level": 0.0 for i in range(20)})


def test_too_few_windows_are_one_clear_error():
    gated = [{"gate.clipping": 1.0}] * 20
    with pytest.raises(CalibrationError, match="5 usable windows of 25"):
        MechanismBaseline.fit(windows(5) + gated)


def test_gated_windows_are_left_out_and_not_judged():
    mixed = windows(20) + [{"gate.transient": 1.0, "level.rms_db": 90.0}] * 3
    baseline = MechanismBaseline.fit(mixed)
    assert np.isnan(baseline.held_out_z()[20:]).all()
    assert np.isfinite(baseline.held_out_z()[:20]).all()
    verdict = baseline.judge(mixed[-1])
    assert (verdict.p_value, verdict.z, verdict.gates) == (None, None, ("transient",))


def test_indicators_missing_here_and_there_do_no_harm():
    """The lines of the shaft are absent where the speed is unknown."""
    calibration = windows(40)
    for i, window in enumerate(calibration):
        if i % 3:
            window["orders.shaft.1x"] = 10.0 + 0.1 * i
    baseline = MechanismBaseline.fit(calibration)
    assert "orders.shaft.1x" in baseline.names
    plain = windows(1, 5)[0]
    assert baseline.judge(plain).p_value == pytest.approx(
        baseline.judge(plain | {"orders.shaft.1x": 12.0}).p_value, rel=0.9
    )
    assert baseline.judge(plain | {"orders.shaft.1x": 80.0}).deviations[0].name == "orders.shaft.1x"


def test_a_constant_indicator_gets_a_floor():
    calibration = [w | {"shape.constant": 1.0} for w in windows(30)]
    baseline = MechanismBaseline.fit(calibration)
    near = baseline.judge(windows(1, 9)[0] | {"shape.constant": 1.01})
    assert abs(near.deviation("shape.constant").z) < 1


def test_an_uncalibrated_speed_is_noted():
    calibration = [w | {"context.speed_hz": 24.9 + 0.01 * i} for i, w in enumerate(windows(20))]
    baseline = MechanismBaseline.fit(calibration)
    assert baseline.judge(windows(1)[0] | {"context.speed_hz": 25.0}).notes == ()
    assert "was not calibrated" in baseline.judge(windows(1)[0] | {"context.speed_hz": 31.0}).notes[0]


def test_two_running_states_become_two_regimes():
    levels = dict.fromkeys(NAMES[:5], 15.0)
    baseline = MechanismBaseline.fit(windows(30, 0) + windows(30, 1, levels), np.arange(60) // 6)
    assert len(baseline.centre) == 2
    idle, loaded = baseline.judge(windows(1, 5)[0]), baseline.judge(windows(1, 6, levels)[0])
    assert idle.regime != loaded.regime
    assert min(idle.p_value, loaded.p_value) > 0.01
    between = baseline.judge(windows(1, 7, dict.fromkeys(NAMES[:5], 7.5))[0])
    assert between.p_value < 0.05


@pytest.mark.parametrize("seed", range(5))
def test_one_state_is_one_regime(seed):
    calibration = windows(60, seed)
    values = np.array([[w[n] for n in NAMES] for w in calibration])
    assert split(values, NAMES).max() == 0


def test_folds_never_divide_a_block():
    blocks = np.repeat([4, 7, 1, 9, 2, 3, 8], [3, 5, 2, 9, 4, 4, 1])
    folds = contiguous_folds(blocks, 5)
    assert set(folds) == set(range(5))
    for block in np.unique(blocks):
        assert len(np.unique(folds[blocks == block])) == 1
    assert (np.diff(folds) >= 0).all()
    assert list(np.bincount(contiguous_folds(np.zeros(20), 5))) == [4, 4, 4, 4, 4]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1e-300, 1.0), min_size=1, max_size=30))
def test_cauchy_is_a_p_value_and_follows_the_smallest(p):
    together = float(log_cauchy_of_groups(np.log(np.array(p)), ONE_GROUP)[0])
    assert np.isfinite(together)
    assert together <= 0
    assert together >= min(np.log(0.5), *np.log(p)) - 1e-6
    assert together <= max(min(np.log(p)) + np.log(len(p)), np.log(0.5)) + 1e-6


def test_cauchy_of_one_p_is_itself():
    for p in (1e-200, 1e-9, 0.01, 0.3):
        assert log_cauchy_of_groups(np.log(np.array([p])), ONE_GROUP)[0] == pytest.approx(np.log(p), rel=1e-6)


def test_two_sided_p_goes_on_beyond_the_smallest_float():
    assert np.exp(log_two_sided_p(np.array([1.96]))) == pytest.approx(0.05, rel=1e-2)
    assert log_two_sided_p(np.array([200.0]))[0] == pytest.approx(-20_000, rel=1e-2)


def test_the_scale_covers_a_heavy_tail():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((100, 1))
    values[::8] *= 10
    plain, heavy = centre_and_scale(values[1::8], ["shape.x"])[1], centre_and_scale(values, ["shape.x"])[1]
    assert heavy > 1.5 * plain


def test_the_score_is_the_verdict_without_its_reasons():
    baseline = MechanismBaseline.fit(windows(40))
    later = windows(5, 7)
    for window in (*later, {**later[0], "gate.no_speed": 1.0}):
        verdict, found = baseline.judge(window), baseline.score(window)
        assert found == (None if verdict.gates else (verdict.p_value, verdict.z))
