"""From a checkpoint to a bundle that the agent's own encoder runs, numerically equal to torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder
from asd_agent.errors import BundleError, UsageError
from asd_export import parity
from asd_export.bundle import export_bundle
from asd_export.cli import main
from asd_export.subject import Subject, read_subject
from asd_export.verify import verify_bundle
from asd_train.backbones import build
from asd_train.checkpoints import save_checkpoint

SECOND = {"window_s": 1.0}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random encoders in our own layout, by name; wide enough to have products worth quantising."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    wide = {
        "beats": {
            **build("beats", "tiny").config,
            "encoder_embed_dim": 128,
            "encoder_ffn_embed_dim": 256,
            "embed_dim": 64,
        },
        "eat": {"embed_dim": 128, "depth": 2, "num_heads": 2, "positions": 1024, "num_classes": 527},
        "efficientat": {"width": 0.1, "num_classes": 527},
        "bandsplit": {"embed_dim": 128, "depth": 2, "num_heads": 2},
        "bandsplit-44": {"embed_dim": 128, "depth": 2, "num_heads": 2, "rate_hz": 44_100},
    }
    for name, config in wide.items():
        save_checkpoint(folder / name, build(name.split("-")[0], config), licence="for tests")
    return folder


def graph(folder: Path, variant: str) -> dict[str, int]:
    """How many nodes of each kind."""
    nodes = onnx.load(folder / f"encoder.{variant}.onnx").graph.node
    kinds = [node.op_type for node in nodes]
    return {kind: kinds.count(kind) for kind in kinds}


def torch_says(subject: Subject, sound: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return subject.module(torch.from_numpy(sound)[None])[0][0].numpy()


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("beats", {}),
        ("beats", {"layers": "1", "pool": "time"}),
        ("eat", {"layers": "all", "pool": "cls"}),
        ("eat", {"layers": "0,2", "pool": "mean"}),
        ("efficientat", {"layers": "2,4,7,11,13,16"}),
        ("efficientat", {"pool": "time"}),
        ("efficientat", {"layers": "all", "pool": "rdp8", "distance": "beam"}),
        ("beats", {"layers": "all", "pool": "rdp4gem3+max"}),
        ("bandsplit", {"layers": "all", "pool": "cls"}),
        ("bandsplit-44", {"pool": "time", "distance": "beam"}),
    ],
)
def test_bundle_equals_torch(checkpoints: Path, tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    subject = read_subject(checkpoints / name, **options)
    meta = export_bundle(subject, tmp_path / "bundle", **SECOND)
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.meta == meta
    assert meta.window_samples == subject.rate_hz
    sound = noise(subject.rate_hz, 7)
    found = Encoder(bundle, "fp32").embed(sound)
    assert list(found) == ["embedding"]
    assert np.abs(found["embedding"] - torch_says(subject, sound)).max() < 1e-4
    assert meta.licence == "for tests"
    assert meta.provenance.source_sha256 == subject.sha256
    assert meta.parity["fp32"]["embedding"]["largest_difference"] < 1e-4
    assert ("int8" in meta.variants) == (name != "efficientat")
    if "int8" in meta.variants:
        assert meta.parity["int8"]["embedding"]["mean_centred_cosine"] > 0.98


@pytest.mark.parametrize("name", ["beats", "eat", "bandsplit"])
def test_attention_is_fused_and_products_are_int8(checkpoints: Path, tmp_path: Path, name: str) -> None:
    export_bundle(read_subject(checkpoints / name), tmp_path / "bundle", **SECOND)
    fp32, int8 = graph(tmp_path / "bundle", "fp32"), graph(tmp_path / "bundle", "int8")
    assert fp32["MultiHeadAttention"] == int8["MultiHeadAttention"] == 2
    assert "Softmax" not in fp32
    assert "SkipLayerNormalization" not in fp32
    assert "Gelu" in fp32
    # q, k, v, out, two of the feed-forward part, in both layers; the front end's products stay as they are
    quantised = int8.get("DynamicQuantizeMatMul", 0) + int8.get("MatMulIntegerToFloat", 0)
    assert quantised == 12
    assert int8["MatMul"] == fp32["MatMul"] == (2 if name == "bandsplit" else 3)


@pytest.mark.parametrize("name", ["beats", "eat", "efficientat", "bandsplit"])
def test_any_length(checkpoints: Path, tmp_path: Path, name: str) -> None:
    subject = read_subject(checkpoints / name)
    meta = export_bundle(subject, tmp_path / "bundle", any_length=True, window_s=1.5)
    assert meta.window_samples is None
    encoder = Encoder(Bundle.load(tmp_path / "bundle"), "fp32")

    @settings(max_examples=12, deadline=None)
    @given(extra=st.integers(0, 40_000))
    def equal(extra: int) -> None:
        sound = noise(subject.min_samples + extra, extra)
        assert np.abs(encoder.embed(sound)["embedding"] - torch_says(subject, sound)).max() < 1e-4

    equal()


def test_the_real_encoder_with_layers_and_labels(shared_dir: Path, tmp_path: Path) -> None:
    subject = read_subject(shared_dir / "checkpoints/mn04_as_mAP_432.pt", layers="2,4,7,11,13,16", labels=True)
    recorded = [shared_dir / "data/compressor/run"]
    meta = export_bundle(subject, tmp_path / "bundle", window_s=2, sounds=recorded)
    assert meta.parity["windows"]["recorded"] == 16
    embedding, *families = meta.outputs
    assert sum(embedding.blocks) == embedding.dim
    assert [(f.name, f.role, f.dim) for f in families] == [
        ("living", "nuisance", 137), ("weather", "nuisance", 15), ("clock", "nuisance", 3),
    ]  # fmt: skip
    assert families[0].labels[74] == "Dog"
    ref = np.load(shared_dir / "reference/efficientat/ref.npz")
    found = Encoder(Bundle.load(tmp_path / "bundle")).embed(ref["b_wav"])
    assert np.abs(found["embedding"][-384:] - ref["b_embedding"][0]).max() < 1e-4
    probability = 1 / (1 + np.exp(-ref["b_logits"][0]))
    assert np.abs(found["living"] - probability[:137]).max() < 1e-5
    assert np.abs(found["clock"] - probability[406:409]).max() < 1e-5


def test_the_same_input_makes_the_same_bytes(checkpoints: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        export_bundle(read_subject(checkpoints / "eat"), tmp_path / folder, **SECOND)
    assert Bundle.load(tmp_path / "one").sha256 == Bundle.load(tmp_path / "two").sha256


def test_nothing_is_written_where_torch_and_bundle_differ(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "FP32_LARGEST", 1e-12)
    with pytest.raises(BundleError, match="fp32 embedding differs from torch by"):
        export_bundle(read_subject(checkpoints / "eat"), tmp_path / "bundle", **SECOND)
    monkeypatch.setattr(parity, "FP32_LARGEST", 1e-4)
    monkeypatch.setattr(parity, "INT8_COSINE", 0.999999)
    with pytest.raises(BundleError, match="int8 embedding has a centred cosine of"):
        export_bundle(read_subject(checkpoints / "eat"), tmp_path / "bundle", **SECOND)
    assert list(tmp_path.iterdir()) == []


def test_a_difference_that_is_no_number_fails() -> None:
    with pytest.raises(BundleError):
        parity.check({"fp32": {"embedding": {"largest_difference": float("nan")}}})
    with pytest.raises(BundleError):
        parity.check({"int8": {"embedding": {"mean_centred_cosine": float("nan")}}})


def test_centred_cosine_sees_what_the_plain_one_hides() -> None:
    rng = np.random.default_rng(0)
    common = 100 * np.ones((8, 16), np.float32)
    own = rng.standard_normal((8, 16)).astype(np.float32)
    row = parity.compare({"e": common + own}, {"e": common - own})["e"]
    assert row["smallest_cosine"] > 0.99
    assert row["mean_centred_cosine"] < -0.7


def test_verify(checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, options = tmp_path / "bundle", ["--window-s", "1", "--layers", "1"]
    assert main(["bundle", str(checkpoints / "eat"), "-o", str(folder), *options]) == 0
    assert "int8" in capsys.readouterr().out
    written = json.loads((folder / "bundle.json").read_text())["parity"]
    assert verify_bundle(folder, checkpoints / "eat") == written
    alone = verify_bundle(folder)
    assert alone["reference"] == "fp32 variant"
    assert alone["int8"]["embedding"]["mean_centred_cosine"] > 0.98
    assert main(["verify", str(folder), "--checkpoint", str(checkpoints / "beats")]) == 1
    assert "not what" in capsys.readouterr().err
    with (folder / "encoder.fp32.onnx").open("ab") as stream:
        stream.write(b"\0")
    assert main(["verify", str(folder)]) == 1
    assert "damaged or tampered" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--layers", "3"], 2, "there is no layer 3"),
        (["--window-s", "0.001"], 2, "needs at least 0.025 s"),
        (["--variants", "fp16"], 2, "use fp32, int8"),
        (["--window-s", "100"], 2, "use shorter windows"),
        (["--labels"], 2, "needs an EfficientAT checkpoint"),
    ],
)
def test_mistakes_are_one_clear_line(
    checkpoints: Path,
    tmp_path: Path,
    options: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["bundle", str(checkpoints / "eat"), "-o", str(tmp_path / "bundle"), *options]
    assert main(arguments) == code
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert list(tmp_path.iterdir()) == []


def test_int8_alone_of_an_encoder_without_large_products(checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use --variants fp32"):
        export_bundle(read_subject(checkpoints / "efficientat"), tmp_path / "bundle", variants=("int8",), **SECOND)


def test_an_existing_folder_is_kept(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/precious").touch()
    with pytest.raises(BundleError, match="already exists"):
        export_bundle(read_subject(checkpoints / "eat"), tmp_path / "bundle", **SECOND)
    assert (tmp_path / "bundle/precious").exists()
