"""The bundle of our own student: rebuilt end to end from a few seconds of sound, and equal to what it is made of."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.config.load import read
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder
from asd_agent.encode.meta import BundleMeta
from asd_agent.errors import BundleError
from asd_export import cli as export_cli
from asd_export.own import EVERYDAY, OwnEncoder, check
from asd_train import cli as train_cli
from asd_train.distil.recipe import FAMILIES, Distil, Nuisance, tiny
from asd_train.distil.student import load_student

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """asd-train distil and asd-export own, on three seconds of everyday sound."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    soundfile.write(folder / "rain.wav", 0.1 * rng.standard_normal(3 * 16_000), 16_000)
    whole = read(str(CONFIGS / "own_default.yaml"), Distil, [])
    recipe = msgspec.structs.replace(
        whole, machines=[], nuisance=[Nuisance(family="weather", path=str(folder / "rain.wav"))]
    )
    (folder / "own.yaml").write_bytes(msgspec.yaml.encode(tiny(recipe, steps=2)))
    assert train_cli.main(["distil", str(folder / "own.yaml"), "-o", str(folder / "run")]) == 0
    for name, options in (("own", []), ("joined", ["--joined"])):
        arguments = ["own", str(folder / "run" / "student"), "-o", str(folder / name), *options]
        assert export_cli.main(arguments) == 0
    return folder


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * 16_000)) / 16_000
    return (0.05 * rng.standard_normal(len(t)) + 0.1 * np.sin(2 * np.pi * 440 * t) + 0.01).astype(np.float32)


@settings(deadline=None, max_examples=8)
@given(seconds=st.floats(1.0, 6.0), seed=st.integers(0, 99))
def test_the_bundle_says_what_torch_says_for_any_length(made: Path, seconds: float, seed: int) -> None:
    found = Encoder(Bundle.load(made / "own")).embed(sound(seconds, seed))
    student, _ = load_student(made / "run" / "student")
    with torch.inference_mode():
        expected = OwnEncoder(student)(torch.from_numpy(sound(seconds, seed))[None])
    for value, wanted in zip(found.values(), expected, strict=True):
        assert np.abs(value - wanted[0].numpy()).max() < 1e-3


def test_joined_is_spectral_and_the_student_side_by_side(made: Path) -> None:
    joined, own, spectral = (Encoder(Bundle.load(b)) for b in (made / "joined", made / "own", "spectral"))
    assert joined.bundle.meta.outputs == [*spectral.bundle.meta.outputs, *own.bundle.meta.outputs]
    window = sound(10.0)
    apart = spectral.embed(window) | own.embed(window)
    for name, value in joined.embed(window).items():
        assert np.abs(value - apart[name]).max() < 1e-4


def test_gain_and_offset_change_nothing_and_families_are_probabilities(made: Path) -> None:
    encoder = Encoder(Bundle.load(made / "own"))
    plain, louder = encoder.embed(sound(4.0)), encoder.embed(np.asarray(7 * sound(4.0) + 0.1, np.float32))
    for name, value in plain.items():
        assert np.abs(value - louder[name]).max() < 1e-3
    assert plain[EVERYDAY].shape == (len(FAMILIES),)
    assert plain[EVERYDAY].min() >= 0
    assert plain[EVERYDAY].sum() <= 1


def test_the_same_student_makes_the_same_bytes(made: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert export_cli.main(["own", str(made / "run" / "student"), "-o", str(again)]) == 0
    assert (again / "encoder.onnx").read_bytes() == (made / "own" / "encoder.onnx").read_bytes()


def test_errors_are_one_line(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export_cli.main(["own", str(tmp_path), "-o", str(tmp_path / "bundle")]) == 2
    assert "holds no student" in capsys.readouterr().err
    assert export_cli.main(["own", str(made / "run" / "student"), "-o", str(made / "own")]) != 0
    assert "already exists" in capsys.readouterr().err
    with pytest.raises(BundleError, match="own differs from torch"):
        check({"own": {"largest_difference": 1.0, "mean_centred_cosine": 1.0}})


def test_what_is_shipped_names_what_it_was_made_of() -> None:
    """The weights beside the bundle are those that it was made from, and the card says what they were trained on."""
    folder = Bundle.load("default").folder
    student, card = load_student(folder)
    meta = msgspec.json.decode((folder / "bundle.json").read_bytes(), type=BundleMeta)
    assert meta.provenance.source_sha256
    assert card.parameters == sum(p.numel() for p in student.parameters()) <= 1_500_000
    text = (folder / "MODEL_CARD.md").read_text()
    for recordings in card.training["config"]["nuisance"]:
        assert Path(recordings["path"]).name in text, recordings["path"]
    found = list(Encoder(Bundle.load("default")).embed(sound(3.0)).values())
    with torch.inference_mode():
        expected = OwnEncoder(student)(torch.from_numpy(sound(3.0))[None])
    for value, wanted in zip(found[-len(expected) :], expected, strict=True):
        assert np.abs(value - wanted[0].numpy()).max() < 5e-3
