"""Checkpoints are recognised by what is in them, and nothing in them is ever run."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import random
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_train.backbones import build, load_backbone
from asd_train.checkpoints import CheckpointError, read_checkpoint, save_checkpoint
from asd_train.pickles import TorchArchive, plain


def official_beats(folder: Path) -> Path:
    """A tiny random BEATs in the authors' layout: the shared table is listed for every layer."""
    backbone = build("beats", "tiny")
    model = backbone.state_dict()
    table = model.pop("encoder.relative_attention_bias.weight")
    for layer in range(backbone.layers):
        model[f"encoder.layers.{layer}.self_attn.relative_attention_bias.weight"] = table
    for part in ("weight_g", "weight_v", "bias"):
        model[f"encoder.pos_conv.0.{part}"] = model.pop(f"encoder.pos_conv.0.{part}")
    torch.save({"cfg": {**backbone.config, "dropout": 0.1, "unheard_of": 1}, "model": model}, folder / "b.pt")
    return folder / "b.pt"


def archive(path: Path, program: bytes) -> Path:
    """A torch file whose pickle is `program`."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("archive/data.pkl", program)
        out.writestr("archive/data/0", b"\0" * 64)
    return path


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_official_beats_layout(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(official_beats(tmp_path))
    assert (checkpoint.layout, checkpoint.backbone) == ("BEATs", "beats")
    assert len(checkpoint.sha256) == 64
    assert "MIT" in checkpoint.licence
    assert checkpoint.model().layers == 2


def test_new_names_of_weight_norm(tmp_path: Path) -> None:
    path = official_beats(tmp_path)
    content = torch.load(path, weights_only=True)
    model = content["model"]
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        model[f"encoder.pos_conv.0.parametrizations.weight.{new}"] = model.pop(f"encoder.pos_conv.0.{old}")
    torch.save(content, tmp_path / "new.pt")
    wave = torch.randn(1, 16_000)
    assert torch.equal(load_backbone(path)(wave)[0][0], load_backbone(tmp_path / "new.pt")(wave)[0][0])


def test_the_efficientat_width_is_found(tmp_path: Path) -> None:
    for size in ("mn01", "mn04"):
        torch.save(build("efficientat", size).state_dict(), tmp_path / "weights.bin")
        assert read_checkpoint(tmp_path / "weights.bin").layout == f"EfficientAT {size}"


@pytest.mark.parametrize(
    ("file", "layout", "head"),
    [
        ("beats/ckpt.pt", "BEATs", False),
        ("beats/ckpt_finetuned.pt", "BEATs fine-tuned", True),
        ("eat/ckpt.pt", "EAT (fairseq)", False),
        ("eat/ckpt_finetuned.pt", "EAT (fairseq) fine-tuned", True),
        ("eat/ckpt_omegaconf_cfg.pt", "EAT (fairseq)", False),
        ("eat/hf_pretrain", "EAT (safetensors)", False),
        ("eat/hf_pretrain/model.safetensors", "EAT (safetensors)", False),
    ],
)
def test_reference_layouts(shared_dir: Path, file: str, layout: str, head: bool) -> None:
    checkpoint = read_checkpoint(shared_dir / "reference" / file)
    assert checkpoint.layout == layout
    assert any(name.startswith(("predictor", "head")) for name in checkpoint.tensors) == head
    assert checkpoint.model().layers == 4


def test_omegaconf_is_read_without_omegaconf(shared_dir: Path) -> None:
    path = shared_dir / "reference/eat/ckpt_omegaconf_cfg.pt"
    with pytest.raises(ModuleNotFoundError):  # so the ordinary way is closed here
        torch.load(path, weights_only=False)
    assert plain(TorchArchive(path).content["cfg"])["model"]["num_heads"] == 4
    assert "omegaconf" not in sys.modules


def test_our_own_layout(tmp_path: Path) -> None:
    backbone = build("eat", "tiny").eval()
    save_checkpoint(tmp_path / "run", backbone, licence="ours", trained_from="nothing")
    checkpoint = read_checkpoint(tmp_path / "run")
    assert (checkpoint.layout, checkpoint.licence) == ("asd-train", "ours")
    wave = torch.randn(1, 16_000)
    assert torch.equal(checkpoint.model()(wave)[0].features, backbone(wave)[0].features)
    with (tmp_path / "run/model.safetensors").open("r+b") as stream:
        stream.seek(-1, io.SEEK_END)
        stream.write(b"\x7f")
    with pytest.raises(CheckpointError, match="damaged, its checksum"):
        read_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.system, eval, exec, pickle.loads])
def test_a_hostile_pickle_is_not_run(tmp_path: Path, function: Callable[..., Any], protocol: int) -> None:
    victim = tmp_path / "victim"
    arguments = {
        os.system: f"touch {victim}",
        eval: f"open({str(victim)!r}, 'w')",
        exec: f"open({str(victim)!r}, 'w')",
        pickle.loads: pickle.dumps(Calls(os.system, f"touch {victim}")),
    }
    hostile = {"cfg": {"x": Calls(function, arguments[function])}, "model": Calls(function, arguments[function])}
    path = archive(tmp_path / "hostile.pt", pickle.dumps(hostile, protocol))
    with pytest.raises(CheckpointError, match="not a BEATs, EAT or EfficientAT checkpoint"):
        read_checkpoint(path)
    assert not victim.exists()
    pickle.loads(pickle.dumps(hostile, protocol))  # the ordinary unpickler does run it: the test can fail
    assert victim.exists()


def test_a_hostile_pickle_cannot_alter_what_we_use(tmp_path: Path) -> None:
    """BUILD on what a name stands for must not reach torch or collections."""
    program = b"".join(
        (
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"N(Vmarked\nI1\ndp0\n\x86b.",  # setattr(_rebuild_tensor_v2, "marked", 1)
        )
    )
    with pytest.raises(CheckpointError):
        read_checkpoint(archive(tmp_path / "h.pt", b"\x80\x02" + program))
    assert not hasattr(torch._utils._rebuild_tensor_v2, "marked")


def test_a_tensor_may_not_point_outside_of_its_bytes(tmp_path: Path) -> None:
    for shape, strides, offset in (((1 << 40,), (0,), 0), ((4,), (1,), 1 << 20), ((4,), (1,), -4)):
        content = TorchArchive(official_beats(tmp_path))
        whole = content.content["model"]["layer_norm.weight"]
        broken = dataclasses.replace(whole, offset=offset, shape=shape, strides=strides)
        with pytest.raises(CheckpointError, match="a tensor is damaged"):
            content.tensor(broken)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.999])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    raw = official_beats(tmp_path).read_bytes()
    (tmp_path / "cut.pt").write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / "cut.pt")
    assert "cut.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_safetensors_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, build("eat", "tiny"))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", b"PK\x03\x04 no zip", b"{}", os.urandom(4096)])
def test_a_wrong_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wrong.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"wrong\.pt"):
        read_checkpoint(tmp_path / "wrong.pt")


def test_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(3, 3).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(CheckpointError, match="it holds bias, weight"):
        read_checkpoint(tmp_path / "linear.pt")


def test_a_missing_or_misshapen_weight(tmp_path: Path) -> None:
    for change in (lambda m: m.pop("layer_norm.weight"), lambda m: m.update({"layer_norm.weight": torch.ones(5)})):
        content = torch.load(official_beats(tmp_path), weights_only=True)
        change(content["model"])
        torch.save(content, tmp_path / "changed.pt")
        with pytest.raises(CheckpointError, match=r"recognised as BEATs.*layer_norm\.weight"):
            load_backbone(tmp_path / "changed.pt")


def test_an_unknown_variant_of_beats(tmp_path: Path) -> None:
    content = torch.load(official_beats(tmp_path), weights_only=True)
    content["cfg"]["deep_norm"] = False
    torch.save(content, tmp_path / "changed.pt")
    with pytest.raises(CheckpointError, match="deep_norm must be True"):
        load_backbone(tmp_path / "changed.pt")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match=r"no model\.safetensors in this folder"):
        read_checkpoint(tmp_path)


def test_a_broken_description(tmp_path: Path, shared_dir: Path) -> None:
    shutil.copytree(shared_dir / "reference/eat/hf_pretrain", tmp_path / "eat")
    (tmp_path / "eat/config.json").chmod(0o644)
    (tmp_path / "eat").chmod(0o755)
    (tmp_path / "eat/config.json").write_text(json.dumps({"format": "asd-train", "version": 99}))
    with pytest.raises(CheckpointError, match=r"config\.json: not a checkpoint description"):
        read_checkpoint(tmp_path / "eat")
    (tmp_path / "eat/config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        read_checkpoint(tmp_path / "eat")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_damage_anywhere_in_the_program_is_one_clear_line(seed: int, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("damage")
    rng = random.Random(seed)
    with zipfile.ZipFile(official_beats(folder)) as before:
        program = bytearray(before.read("b/data.pkl"))
    for _ in range(rng.randint(1, 4)):
        program[rng.randrange(len(program))] = rng.randrange(256)
    path = archive(folder / "damaged.pt", bytes(program))
    with pytest.raises(CheckpointError) as caught:  # its tensors are missing in any case
        load_backbone(path)
    assert "\n" not in str(caught.value)
