"""The small encoder of our own: its sounds, its mixtures, its calibration, and a run that goes on exactly."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from asd_agent.config.load import read
from asd_train import cli
from asd_train.distil import faults, recipe, stems
from asd_train.distil.calibration import FAULTS, calibrate, limit_of
from asd_train.distil.everyday import everyday
from asd_train.distil.learner import AUDIBLE_DB, INAUDIBLE_DB
from asd_train.distil.mixtures import MODULATION, NONE, Mixer, Mixture
from asd_train.distil.recipe import Distil
from asd_train.distil.run import distil, learner_of
from asd_train.distil.student import WEIGHTS, MelSeconds, decibel, load_student

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "train" / "own_default.yaml"
TOKENS = 5


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings of tones in noise at 22.05 kHz, some seconds each."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("everyday")
    rng = np.random.default_rng(0)
    for number in range(4):
        t = np.arange(3 * 22_050) / 22_050
        sound = 0.1 * np.sin(2 * np.pi * 300 * (number + 1) * t) + 0.02 * rng.standard_normal(len(t))
        soundfile.write(folder / f"{number}.wav", sound, 22_050)
    return folder


@pytest.fixture(scope="module")
def small(sounds: Path) -> Distil:
    whole = read(str(CONFIG), Distil, [])
    nuisance = [
        recipe.Nuisance(family=family, path=str(sounds / f"{number}.wav"))
        for number, family in enumerate(("voices_and_animals", "weather", "traffic", "tools_and_impacts"))
    ]
    return recipe.tiny(msgspec.structs.replace(whole, machines=[], nuisance=nuisance))


@pytest.fixture(scope="module")
def collected(small: Distil) -> stems.Stems:
    found = stems.stems_of(small)
    tokens = np.random.default_rng(0).standard_normal((len(found.db), TOKENS)).astype(np.float32)
    return dataclasses.replace(found, tokens=tokens)


@pytest.fixture(scope="module")
def mixer(small: Distil, collected: stems.Stems) -> Mixer:
    return Mixer(collected, small.mix, seed=0)


@pytest.mark.parametrize("kind", faults.ADDED)
def test_a_fault_has_an_rms_of_one_and_follows_from_its_seed(kind: str) -> None:
    first, again, other = (faults.fault(kind, 32_000, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.isfinite(first).all()
    assert np.sqrt(np.mean(first**2)) == pytest.approx(1, abs=1e-3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("family", recipe.FAMILIES)
def test_computed_everyday_sound_is_finite_and_of_rms_one(family: recipe.Family) -> None:
    for seed in range(8):
        sound = everyday(family, 24_000, np.random.default_rng(seed))
        assert np.isfinite(sound).all()
        assert np.sqrt(np.mean(sound**2)) == pytest.approx(1, abs=1e-3)


def test_what_is_set_aside_has_every_role_and_no_pause_is_kept(small: Distil, collected: stems.Stems) -> None:
    for role in (stems.MACHINE, stems.FAULT):
        assert len(collected.rows(role, aside=False))
    assert set(collected.label[collected.rows(stems.FAULT, aside=True)]) == set(range(len(faults.ADDED)))
    waves = stems.collect(small)[0].astype(np.float64)
    assert np.allclose(np.sqrt(np.mean(waves**2, axis=1)), 1, atol=2e-3)
    loud_then_silent = np.concatenate([np.random.default_rng(0).standard_normal(32_000), np.zeros(32_000)])
    assert len(stems.cut(loud_then_silent.astype(np.float32))) == 4  # the fourth holds the end of the sound


def same(a: Mixture, b: Mixture) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_batch_follows_from_its_number(mixer: Mixer) -> None:
    feed = mixer.feed(4, 0, 0, 1)
    batches = [next(feed) for _ in range(4)]
    assert same(next(mixer.feed(4, 2, 0, 1)), batches[2])
    assert same(next(mixer.feed(4, 1, 1, 2)), batches[3])  # the second of two processes
    assert not same(batches[0], batches[1])


def test_what_is_absent_is_silent_and_levels_are_those_drawn(mixer: Mixer) -> None:
    batch = mixer.batch(list(range(200)))
    assert (batch.level[:, 0] == 1).all()
    for part, label, (low, high) in ((1, batch.family, (-20, 15)), (2, batch.fault, (-20, 5))):
        absent = label == NONE
        assert absent.any()
        assert (batch.level[absent, part] == 0).all()
        assert (batch.tokens[absent, part] == 0).all()
        db = 20 * torch.log10(batch.level[~absent, part])
        assert db.min() > low - 0.1
        assert db.max() < high + 0.1
    modulated = batch.fault == MODULATION
    assert modulated.any()
    assert (batch.swell[~modulated] == 1).all()
    assert batch.swell[modulated].std(1).max() > 0.1


def test_a_ratio_says_what_can_be_heard(small: Distil, collected: stems.Stems, mixer: Mixer) -> None:
    """The same mixtures with the nuisance 40 dB louder or quieter: surely audible, surely not."""
    learner = learner_of(small, collected)
    batch = mixer.batch(list(range(60)))
    present = batch.family != NONE
    for gain, right in ((100.0, lambda db: db > AUDIBLE_DB), (0.001, lambda db: db < INAUDIBLE_DB)):
        level = batch.level.clone()
        level[:, 1] *= gain
        _, ratio_db = learner.heard(batch._replace(level=level))
        assert right(ratio_db[present, 0]).all()


def test_mixing_features_is_like_mixing_sound(small: Distil, collected: stems.Stems) -> None:
    """Two noises: mean and spread over time of each band's dB, added as powers and as waveforms."""
    learner, frontend = learner_of(small, collected), MelSeconds()
    one, other = torch.randn(2, 64, 16_000, generator=torch.Generator().manual_seed(0))

    def power(sound: torch.Tensor) -> torch.Tensor:
        return frontend.bands(frontend.spectrum(sound).abs().square())

    torch.manual_seed(0)
    mixed, true = decibel(learner._added(power(one), power(other))), decibel(power(one + other))
    assert (mixed.mean((0, 2)) - true.mean((0, 2))).abs().max() < 0.5
    spread = mixed.std((0, 2)) / true.std((0, 2))
    assert spread.min() > 0.7
    assert spread.max() < 1.3


def test_stems_are_taken_from_the_cache_of_the_same_recipe_only(
    small: Distil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "run" / "stems.npz"
    first = stems.stems_of(small, cache)
    monkeypatch.setattr(stems, "collect", lambda *_: pytest.fail("read again"))
    again = stems.stems_of(small, cache)
    assert np.array_equal(first.db, again.db)
    assert again.names == first.names
    other = msgspec.structs.replace(small, train=msgspec.structs.replace(small.train, seed=1))
    with pytest.raises(pytest.fail.Exception, match="read again"):
        stems.stems_of(other, cache)


def test_a_window_is_of_one_machine_and_one_fault(mixer: Mixer) -> None:
    for number in range(20):
        window = mixer.window(number, 4, nuisance=number % 2 == 0, fault=number % 3 == 0)
        assert len(set(window.machine.tolist())) == 1
        assert len(set(window.fault.tolist())) == 1
        assert (window.fault[0] != NONE) == (number % 3 == 0)
        assert (window.family != NONE).any() == (number % 2 == 0)
        assert torch.equal(window.response_db[0, 0], window.response_db[-1, 0])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), called=st.floats(0.01, 0.2))
def test_no_more_windows_than_allowed_are_called_nuisance(seed: int, called: float) -> None:
    rng = np.random.default_rng(seed)
    odds, faulty = rng.normal(size=400), rng.random(400) < 0.7
    limit = limit_of(odds, faulty, called)
    groups = ((odds[~faulty], called), (odds[faulty], FAULTS * called))
    for some, share in groups:
        assert (some > limit).mean() <= share
    assert any((some >= limit).mean() > share for some, share in groups)  # it could not be lower


def test_calibration_sets_probabilities_and_says_what_it_saw(
    small: Distil, collected: stems.Stems, mixer: Mixer
) -> None:
    learner = learner_of(small, collected)
    aside = Mixer(collected, small.mix, seed=0, aside=True)
    figures = calibrate(learner, mixer, aside, recipe.Calibration(windows=36, called=0.05))
    assert learner.student.evidence.abs().max() > 0
    assert figures.clean_called <= 0.05
    assert set(figures.recognised) == set(recipe.FAMILIES)


def test_a_stopped_run_ends_with_the_same_weights(small: Distil, tmp_path: Path) -> None:
    train = msgspec.structs.replace(small.train, steps=4, checkpoint_every=2, ema=0.5)
    plan = msgspec.structs.replace(small, train=train)
    whole = distil(plan, tmp_path / "whole")
    resumed = tmp_path / "resumed"
    shutil.copytree(tmp_path / "whole", resumed)
    shutil.rmtree(resumed / "checkpoints" / "step-00000004")
    shutil.rmtree(resumed / "student")
    again = distil(plan, resumed, resume=True)
    first, second = (load_file(folder / WEIGHTS) for folder in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    lines = [json.loads(line) for line in (resumed / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


def test_the_loss_falls(small: Distil, collected: stems.Stems, mixer: Mixer) -> None:
    learner = learner_of(small, collected).train()
    optimiser = torch.optim.AdamW(learner.parameters(), 3e-3)
    batch = mixer.batch(list(range(32)))
    seen = []
    for _ in range(25):
        losses = learner(batch)
        seen.append(float(losses["loss"].detach()))
        losses["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
    assert seen[-1] < 0.7 * seen[0]
    assert {"nuisance", "fault", "ratio", "identity", "teacher"} < set(losses)


def test_the_command_shows_a_plan_and_refuses_what_is_not_there(
    small: Distil, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "own.yaml"
    config.write_bytes(msgspec.yaml.encode(small))
    assert cli.main(["distil", str(config), "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert "weather" in plan
    assert "6 steps of 8" in plan
    missing = f'[{{"family": "weather", "path": "{tmp_path}/rain.ogg"}}]'
    assert cli.main(["distil", str(config), "--set", f"nuisance={missing}", "-o", str(tmp_path / "run")]) == 1
    assert f"{tmp_path}/rain.ogg: no such file" in capsys.readouterr().err
    assert cli.main(["distil", str(config), "--set", "mix.hum=1"]) == 2
    assert "hum" in capsys.readouterr().err


def test_a_folder_without_a_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="holds no student"):
        load_student(tmp_path)
