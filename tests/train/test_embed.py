"""`asd-train embed`: sound files into an .npz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asd_train.backbones import build, load_backbone
from asd_train.checkpoints import save_checkpoint
from asd_train.cli import main


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "encoder", build("eat", "tiny"))
    return tmp_path / "encoder"


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """One second and two at 16 kHz, one second in stereo at 44.1 kHz."""
    folder, rng = tmp_path / "sounds", np.random.default_rng(0)
    folder.mkdir()
    for name, rate, seconds, channels in (("a", 16_000, 1, 1), ("b", 16_000, 2, 1), ("c", 44_100, 1, 2)):
        noise = 0.1 * rng.standard_normal((rate * seconds, channels))
        soundfile.write(folder / f"{name}.wav", noise, rate, "FLOAT")
    return folder


def embed(*arguments: object) -> dict[str, np.ndarray]:
    output = str(arguments[-1])
    assert main(["embed", *map(str, arguments[:-1]), "-o", output]) == 0
    with np.load(output) as found:
        return dict(found)


def test_one_row_per_file(checkpoint: Path, sounds: Path, tmp_path: Path) -> None:
    found = embed(checkpoint, sounds, tmp_path / "out.npz")
    assert [Path(file).name for file in found["file"]] == ["a.wav", "b.wav", "c.wav"]
    assert found["embedding"].shape == (3, 32)
    samples, _ = soundfile.read(sounds / "b.wav", dtype="float32")
    with torch.inference_mode():
        (tokens,) = load_backbone(checkpoint)(torch.from_numpy(samples)[None])
    assert np.allclose(found["embedding"][1], tokens.features.mean((1, 2))[0], atol=1e-6)


@pytest.mark.parametrize(("pool", "layers", "dim"), [("cls", "all", 64), ("time", "1", 256), ("mean", "0,2", 64)])
def test_layers_and_pooling(checkpoint: Path, sounds: Path, tmp_path: Path, pool: str, layers: str, dim: int) -> None:
    found = embed(checkpoint, sounds / "a.wav", "--pool", pool, "--layers", layers, tmp_path / "out.npz")
    assert found["embedding"].shape == (1, dim)


def test_tokens_of_files_of_different_lengths(checkpoint: Path, sounds: Path, tmp_path: Path) -> None:
    found = embed(checkpoint, sounds, "--pool", "none", tmp_path / "out.npz")
    assert found["tokens"].shape == (3, 14, 8, 32)  # 198 frames -> 224 -> 14 patches
    assert found["frames"].tolist() == [8, 14, 8]
    assert not found["tokens"][0, 8:].any()
    assert np.allclose(found["tokens"][1].mean((0, 1)), found["embedding"][1], atol=1e-6)


def test_the_same_by_the_checkpoint_of_the_authors(shared_dir: Path, tmp_path: Path) -> None:
    """The stored mean over all tokens of each layer, from the waveform as a file."""
    folder = shared_dir / "reference/beats"
    ref = np.load(folder / "ref.npz")
    soundfile.write(tmp_path / "d.wav", ref["d_wav"][0], 16_000, "FLOAT")
    found = embed(folder / "ckpt.pt", tmp_path / "d.wav", "--layers", "all", tmp_path / "out.npz")
    assert np.abs(found["embedding"][0] - ref["d_layers_timefreqmean"][1:, 0].ravel()).max() < 2e-5


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("absent.pt", "a.wav"), "no such checkpoint", 1),
        (("encoder", "absent.wav"), "absent.wav", 1),
        (("encoder", "a.wav", "--layers", "9"), "there is no layer 9", 2),
        (("encoder", "a.wav", "--device", "tpu9"), "--device tpu9", 2),
        (("encoder", "short.wav"), "short.wav: a clip of 100 samples is too short", 1),
    ],
)
def test_mistakes_are_one_clear_line(
    checkpoint: Path,
    sounds: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    soundfile.write(sounds / "short.wav", np.zeros(100), 16_000)
    monkeypatch.chdir(sounds)
    (sounds / "encoder").symlink_to(checkpoint)
    assert main(["embed", *arguments, "-o", "out.npz"]) == code
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_help_needs_no_torch() -> None:
    import subprocess
    import sys

    program = "import sys, asd_train.cli as c\ntry: c.main(['embed', '--help'])\nexcept SystemExit: pass\n"
    program += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
