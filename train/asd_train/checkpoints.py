"""Checkpoints of encoders: the official layouts, recognised by their content, and our own folders.

    BEATs          torch file {"cfg": {...}, "model": {...}}, fine-tuned ones with a label head
    EAT            fairseq torch file (pre-trained or fine-tuned, any cfg) or the safetensors port
    EfficientAT    torch file that is a plain state dict
    ours           folder with model.safetensors and config.json ("format": "asd-train"): one encoder;
                   or the folder of a trained system (system.json) with one encoder branch: its encoder

Nothing in a file is executed (see `pickles`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from asd_train.backbones import Backbone, build
from asd_train.backbones.efficientat import EfficientAt
from asd_train.pickles import CheckpointError, TorchArchive, plain

__all__ = ["Checkpoint", "CheckpointError", "read_checkpoint", "save_checkpoint"]

FORMAT, VERSION = "asd-train", 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
SYSTEM = "system.json"
LICENCES = {
    "beats": "MIT (microsoft/unilm), as published with BEATs",
    "eat": "MIT (cwx-worst-one/EAT), as published with EAT",
    "efficientat": "MIT (fschmid56/EfficientAT), as published with EfficientAT",
}


@dataclass(frozen=True)
class Checkpoint:
    """An encoder's weights under the names of our modules, and where they come from."""

    path: Path
    layout: str  # "BEATs", "EAT (fairseq)", ...
    backbone: str
    config: Mapping[str, Any]  # for `backbones.build`
    tensors: Mapping[str, Tensor] = field(repr=False)
    licence: str
    sha256: str  # of the file that holds the weights

    def model(self) -> Backbone:
        """The encoder with these weights, in eval mode. CheckpointError, one line, where they do not fit."""
        try:
            with torch.device("meta"):  # shapes without memory: the configuration may ask for any size
                shapes = build(self.backbone, self.config)
        except (msgspec.ValidationError, ValueError, OverflowError, RuntimeError) as error:
            raise CheckpointError(f"{self.path}: its configuration is not usable ({error})") from error
        try:
            shapes.load_state_dict(self.tensors, assign=True)
            backbone = build(self.backbone, self.config)
            backbone.load_state_dict(self.tensors)
        except RuntimeError as error:
            detail = str(error).splitlines()[1:3]
            raise CheckpointError(
                f"{self.path}: recognised as {self.layout}, but its weights do not fit: "
                + " ".join(line.strip() for line in detail)[:240]
            ) from error
        return backbone.eval()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Recognise and read a checkpoint file or folder. CheckpointError with one line otherwise."""
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / WEIGHTS
        if not path.is_file():
            raise CheckpointError(f"{path.parent}: no {WEIGHTS} in this folder; name the checkpoint file")
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint")
    with _readable(path).open("rb") as stream:
        is_zip = stream.read(2) == b"PK"
    return _read_torch(path) if is_zip else _read_safetensors(path)


def save_checkpoint(folder: str | Path, backbone: Backbone, **about: Any) -> None:
    """Write one encoder in our own layout; each file appears whole or not at all.

    about: further keys of config.json, such as licence="..." or trained_from="...".
    """
    from safetensors.torch import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: value.contiguous() for name, value in backbone.state_dict().items()})
    config = {
        **about,
        "format": FORMAT,
        "version": VERSION,
        "backbone": {"name": backbone.name, "config": backbone.config},
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    _write(folder / WEIGHTS, weights)
    _write(folder / CONFIG, json.dumps(config, indent=2).encode() + b"\n")


def _read_torch(path: Path) -> Checkpoint:
    archive = TorchArchive(path)
    content = archive.content if isinstance(archive.content, dict) else {}
    model = content.get("model")
    state = archive.tensors(model if isinstance(model, Mapping) else content)
    read = next((read for key, read in _LAYOUTS if key in state), None)
    if read is None:
        keys = ", ".join(sorted(" ".join(str(key)[:40].split()) for key in content)[:6]) or "nothing"
        raise CheckpointError(f"{path}: not a BEATs, EAT or EfficientAT checkpoint (it holds {keys})")
    try:
        cfg = plain(content.get("cfg")) or {}
        layout, name, config, tensors = read(state, cfg if isinstance(cfg, dict) else {})
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: part of the checkpoint is missing or malformed ({repr(error)[:120]})"
        ) from error
    return Checkpoint(path, layout, name, config, tensors, LICENCES[name], _sha256(path))


_Read = tuple[str, str, dict[str, Any], dict[str, Tensor]]  # layout, backbone, config, tensors


def _beats(state: dict[str, Tensor], cfg: dict[str, Any]) -> _Read:
    tensors = {}
    for key, value in state.items():
        name = key.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        if ".relative_attention_bias." in name:  # one table, listed for every layer
            name = "encoder.relative_attention_bias.weight"
        tensors[name] = value
    config = {**cfg, "finetuned_model": "predictor.weight" in tensors}
    if config["finetuned_model"]:
        config["predictor_class"] = len(tensors["predictor.weight"])
    return "BEATs" + " fine-tuned" * config["finetuned_model"], "beats", config, tensors


def _eat_fairseq(state: dict[str, Tensor], cfg: dict[str, Any]) -> _Read:
    model = cfg.get("model") or {}
    if "pretrained_model_args" in model:
        model = (model["pretrained_model_args"] or {}).get("model") or {}
    renamed = {}
    for key, value in state.items():
        name = key.removeprefix("model.").removeprefix("modality_encoders.IMAGE.")
        if not name.startswith("decoder."):
            renamed[name.replace("context_encoder.norm.", "pre_norm.")] = value
    config = _eat_config(renamed, model, fc_norm_eps=1e-6)
    return "EAT (fairseq)" + " fine-tuned" * ("head.weight" in renamed), "eat", config, renamed


def _eat_config(tensors: Mapping[str, Tensor], cfg: Mapping[str, Any], fc_norm_eps: float) -> dict[str, Any]:
    """Sizes from the tensors, the rest from the cfg; heads of 64 where it is silent."""
    dim = tensors["extra_tokens"].shape[-1]
    config = {
        "embed_dim": dim,
        "depth": len([key for key in tensors if key.endswith(".attn.qkv.weight")]),
        "num_heads": cfg.get("num_heads") or dim // 64,
        "mlp_ratio": tensors["blocks.0.mlp.fc1.weight"].shape[0] / dim,
        "positions": tensors["fixed_positional_encoder.positions"].shape[1],
        "norm_eps": cfg.get("norm_eps") or 1e-6,
        "fc_norm_eps": fc_norm_eps,
        "num_classes": len(tensors["head.weight"]) if "head.weight" in tensors else 0,
    }
    if cfg.get("layer_norm_first"):
        raise ValueError("layer_norm_first is not what any published EAT checkpoint uses")
    return config


def _efficientat(state: dict[str, Tensor], _: dict[str, Any]) -> _Read:
    classes = len(state["classifier.5.weight"])
    found = (state["features.0.0.weight"].shape[0], state["features.16.0.weight"].shape[0])
    for tenths in range(1, 41):
        model_config = {"width": tenths / 10, "num_classes": classes}
        if EfficientAt.widths(tenths / 10) == found:
            return f"EfficientAT mn{tenths:02d}", "efficientat", model_config, state
    raise ValueError(f"no width of EfficientAT mn has {found} channels")


_LAYOUTS: tuple[tuple[str, Callable[[dict[str, Tensor], dict[str, Any]], _Read]], ...] = (
    ("patch_embedding.weight", _beats),
    ("modality_encoders.IMAGE.extra_tokens", _eat_fairseq),
    ("model.modality_encoders.IMAGE.extra_tokens", _eat_fairseq),
    ("features.16.0.weight", _efficientat),
)


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: neither a torch checkpoint (>= 1.6) nor a whole safetensors file ({error})"
        ) from error
    if (card := _read_json(path.with_name(SYSTEM))).get("encoders"):
        return _system(path, tensors, card["encoders"])
    about = _read_json(path.with_name(CONFIG))
    if about.get("format") == FORMAT:
        return _ours(path, tensors, about)
    renamed = {key.removeprefix("model."): value for key, value in tensors.items()}
    if "extra_tokens" in renamed and "pre_norm.weight" in renamed:
        try:
            config = _eat_config(renamed, about, fc_norm_eps=1e-5)
        except (LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: part of the EAT checkpoint is missing ({error!r})") from error
        return Checkpoint(path, "EAT (safetensors)", "eat", config, renamed, LICENCES["eat"], _sha256(path))
    keys = ", ".join(sorted(tensors)[:4])
    raise CheckpointError(f"{path}: not an EAT checkpoint, and no {CONFIG} of asd-train beside it ({keys}, ...)")


def _ours(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> Checkpoint:
    backbone, sha256 = about.get("backbone"), _sha256(path)
    if about.get("version") != VERSION or not isinstance(backbone, dict) or "name" not in backbone:
        raise CheckpointError(f"{path.with_name(CONFIG)}: not a checkpoint description of this asd-train")
    if about.get("sha256") != sha256:
        raise CheckpointError(f"{path}: damaged, its checksum is not the one in {CONFIG}")
    config, licence = backbone.get("config") or {}, str(about.get("licence", ""))
    return Checkpoint(path, "asd-train", str(backbone["name"]), config, tensors, licence, sha256)


def _system(path: Path, tensors: dict[str, Tensor], encoders: list[dict[str, Any]]) -> Checkpoint:
    """The encoder of a trained system: its tensors are called branches.N.backbone.*"""
    if len(encoders) != 1:
        names = ", ".join(str(encoder.get("name")) for encoder in encoders)
        raise CheckpointError(f"{path.parent}: a system of several encoders ({names}); name that of one of them")
    inside = {}
    for name, value in tensors.items():
        _, mark, own = name.partition(".backbone.")
        if mark:
            inside[own] = value
    name, config = str(encoders[0].get("name")), encoders[0].get("config") or {}
    return Checkpoint(path, "asd-train system", name, config, inside, LICENCES.get(name, ""), _sha256(path))


def _read_json(path: Path) -> dict[str, Any]:
    """{} where there is no such file."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from error
    return found if isinstance(found, dict) else {}


def _readable(path: Path) -> Path:
    if not os.access(path, os.R_OK):
        raise CheckpointError(f"{path}: no permission to read it")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
