"""A system that asd-train trained becomes a bundle: the same embedding in evaluation and in the agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from asd_agent import bank
from asd_agent.encode.bundle import Bundle, BundleMeta, Output, Provenance, Variant
from asd_agent.encode.encoder import Encoder
from asd_agent.errors import BundleError, UsageError
from asd_export.bundle import export_bundle
from asd_export.machine_bank import machine_bank, packed
from asd_export.subject import read_subject
from asd_export.verify import verify_bundle
from asd_export.write import write_bundle
from asd_train import config
from asd_train.checkpoints import read_checkpoint
from asd_train.data import Clip
from asd_train.evaluate import bank_of, evaluate
from asd_train.model import build_system, describe, load_system, save_system
from asd_train.scoring import Scoring

BEATS = {"kind": "encoder", "encoder": "beats", "size": "tiny"}
EAT = {"kind": "encoder", "encoder": "eat", "size": "tiny"}
FFT = {"kind": "fft", "dim": 16, "width": 16, "normalise": "features"}


def trained(folder: Path, model: dict[str, Any]) -> Path:
    """A system with random weights and random batch statistics, as `asd-train fit` writes it."""
    values = {"name": "test", "data": [{"path": "none"}], "clip_s": 2.0, "model": model}
    system_config = msgspec.convert(values, config.System)
    system = build_system(system_config)
    generator = torch.Generator().manual_seed(0)
    for name, buffer in system.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1, generator=generator)
    save_system(system.merged(), describe(system, system_config, [], {}), folder / "system")
    return folder / "system"


@pytest.mark.parametrize(
    "model",
    [
        {"branches": [{**BEATS, "dim": 16}, FFT]},
        {"branches": [{**EAT, "pool": "attentive", "dim": 24}]},
        {"branches": [BEATS, EAT], "output": {"layers": "all"}},
        {"branches": [{**BEATS, "pool": "time", "layers": [1]}]},
    ],
)
def test_the_bundle_says_what_the_system_says(tmp_path: Path, model: dict[str, Any]) -> None:
    folder = trained(tmp_path, model)
    meta = export_bundle(read_subject(folder), tmp_path / "bundle", variants=("fp32",))
    system, card = load_system(folder)
    assert (meta.name, meta.window_samples) == ("test", 32_000)
    assert (meta.outputs[0].dim, meta.outputs[0].distance) == (card.dim, "cosine")
    sound = 0.1 * np.random.default_rng(1).standard_normal(32_000).astype(np.float32)
    found = Encoder(Bundle.load(tmp_path / "bundle")).embed(sound)["embedding"]
    with torch.inference_mode():
        expected = system(torch.from_numpy(sound)[None])[0].numpy()
    assert np.abs(found - expected).max() < 1e-4
    assert verify_bundle(tmp_path / "bundle", folder) == meta.parity


def test_options_that_the_system_has_itself_are_refused(tmp_path: Path) -> None:
    folder = trained(tmp_path, {"branches": [BEATS, FFT]})
    with pytest.raises(UsageError, match="its own layers and pooling"):
        read_subject(folder, layers="all")
    with pytest.raises(UsageError, match=r"takes windows of 2\.0 s only"):
        export_bundle(read_subject(folder), tmp_path / "bundle", window_s=3.0)


def test_the_encoder_of_a_system_is_a_checkpoint_too(tmp_path: Path) -> None:
    folder = trained(tmp_path, {"branches": [{**BEATS, "dim": 16}, FFT]})
    checkpoint = read_checkpoint(folder)
    assert checkpoint.layout == "asd-train system"
    own = load_system(folder)[0].encoders[0].backbone
    wave = torch.randn(1, 16_000)
    with torch.inference_mode():
        assert torch.equal(checkpoint.model()(wave)[0].features, own(wave)[0].features)


@pytest.mark.parametrize(
    "scoring",
    [
        {"kind": "cosine", "bank": "target", "smote": 1.0, "smote_neighbours": 2},
        {"kind": "two_bank", "smote": 0.5, "smote_neighbours": 2},
        {"kind": "two_bank", "metric": "euclidean", "scaled": True},
        {"kind": "domain_z", "metric": "euclidean", "memmixup": 9},
        {"kind": "local_density"},
        {"kind": "beam"},
    ],
    ids=lambda scoring: "-".join(map(str, scoring.values())),
)
def test_the_bank_in_a_bundle_scores_as_evaluate_does(tmp_path: Path, scoring: dict[str, Any]) -> None:
    recipe = msgspec.convert(scoring, Scoring)
    clips = [
        Clip(path=f"{split}{i}.wav", machine="fan", split=split, domain=domain, label="normal")
        for split, domain, count in (("train", "source", 24), ("train", "target", 6), ("test", "source", 10))
        for i in range(count)
    ]
    vectors = np.random.default_rng(0).normal(1.0, 1.0, (len(clips), 48)) + [[c.domain == "target"] for c in clips]
    (section,) = evaluate(clips, vectors, recipe, blocks=[16, 32])
    meta = Output(name="embedding", dim=48, distance="cosine")
    file, content = packed(bank_of(clips, vectors, recipe, [16, 32]), "fan")
    described = BundleMeta(
        name="test", rate_hz=16_000, window_samples=None, min_samples=1, variants={"fp32": Variant(file="e.onnx")},
        outputs=[msgspec.structs.replace(meta, bank=file)], front_end="", licence="", provenance=Provenance(tool="t"),
    )  # fmt: skip
    write_bundle(tmp_path / "bundle", described, {"fp32": b"graph"}, bank=content)
    bundle = Bundle.load(tmp_path / "bundle")
    (output,) = bundle.meta.outputs
    assert output.bank is not None
    restored = bank.from_arrays(output.bank.kind, bundle.bank_arrays(output.bank))
    files = [clip.file for clip in section.clips]
    tested = {clip.file: row for row, clip in enumerate(clips) if clip.split == "test"}
    found = restored.distance(vectors[[tested[file] for file in files]])
    assert np.abs(found - section.scores).max() < 1e-5
    assert found.std() > 1e-3
    (tmp_path / "bundle" / output.bank.file).write_bytes(content[:-1])
    with pytest.raises(BundleError, match=r"bank\.npz: damaged or tampered with"):
        Bundle.load(tmp_path / "bundle")


def test_only_a_system_has_a_bank(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no trained system"):
        machine_bank(tmp_path, "pump")
