"""What is exported: a torch module from waveform to named embeddings, and what the bundle says of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asd_agent.encode.meta import Distance, Output
from asd_agent.errors import UsageError
from asd_export.audioset import FAMILIES
from asd_train.backbones import Backbone
from asd_train.checkpoints import read_checkpoint
from asd_train.embed import PooledEncoder
from asd_train.pooling import parse_layers

FRONT_ENDS = {
    "beats": "Kaldi log-mel, 25 ms Povey window, 10 ms hop, 128 bands of 20-8000 Hz, fixed normalisation",
    "eat": "mean removed; Kaldi log-mel, 25 ms Hann window, 10 ms hop, 128 bands of 20-8000 Hz, fixed normalisation",
    "bandsplit": "mean removed; log power every 40 Hz, 25 ms Hann window, 10 ms hop, fixed normalisation",
    "efficientat": "pre-emphasis; log-mel, 25 ms Hann window, 10 ms hop, 128 bands of 0-15000 Hz, fixed normalisation",
}
# A source of this rate may be resampled upwards: the bands above stay empty, in calibration as later.
LOWEST_RATES = {"efficientat": 16_000}


@dataclass(frozen=True)
class Subject:
    """`module`: waveform [1, samples] -> a tuple with one tensor [1, dim] per output."""

    module: nn.Module
    outputs: list[Output]
    name: str
    rate_hz: int
    lowest_rate_hz: int | None
    min_samples: int
    clip_s: float | None  # what the checkpoint was trained on, where it says so
    fixed_length: bool  # the module takes clips of clip_s only
    front_end: str
    licence: str
    source: str
    sha256: str
    settings: dict[str, Any]  # with which `read_subject` makes it again


def read_subject(
    checkpoint: str | Path,
    *,
    layers: str = "last",
    pool: str = "mean",
    distance: Distance | None = None,
    labels: bool = False,
) -> Subject:
    """An encoder's checkpoint with a pooling, or a system that asd-train trained (which has its own).

    labels: the probabilities of AudioSet's sounds that no machine makes as further outputs. Raises AsdError.
    """
    path = Path(checkpoint).expanduser()
    if (path / "system" / "system.json").is_file():  # a run of asd-train fit
        path = path / "system"
    if (path / "system.json").is_file():
        if layers != "last" or pool != "mean" or labels:
            raise UsageError(f"{path}: a trained system has its own layers and pooling; leave these options out")
        return _system(path, distance)
    found = read_checkpoint(path)
    backbone = found.model()
    numbers = parse_layers(layers, backbone)
    encoder = PooledEncoder(backbone, numbers, pool)
    chosen: Distance = distance or "whitened"
    return Subject(
        module=_Labelled(encoder) if labels else _Single(encoder),
        outputs=_outputs(encoder, chosen, labels),
        name=_name(path),
        rate_hz=backbone.rate_hz,
        lowest_rate_hz=LOWEST_RATES.get(backbone.name),
        min_samples=backbone.min_samples,
        clip_s=None,
        fixed_length=False,
        front_end=FRONT_ENDS[backbone.name],
        licence=found.licence,
        source=found.path.name,
        sha256=found.sha256,
        settings={
            "layout": found.layout,
            "layers": ",".join(map(str, numbers)),
            "pool": pool,
            "distance": chosen,
            "labels": labels,
        },
    )


def _system(folder: Path, distance: Distance | None) -> Subject:
    from asd_train.model import WEIGHTS, load_system

    system, card = load_system(folder)
    kinds = [branch.backbone.name for branch in system.encoders]
    known: tuple[Distance, ...] = ("cosine", "euclidean", "whitened", "beam")
    trained = next((kind for kind in known if kind == card.scoring.kind), card.scoring.metric)
    chosen: Distance = distance or trained
    with (folder / WEIGHTS).open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return Subject(
        module=_Single(system),
        outputs=[
            Output(name="embedding", dim=system.dim, distance=chosen, blocks=system.blocks if chosen == "beam" else [])
        ],
        name=_name(Path(card.name)),
        rate_hz=system.rate_hz,
        lowest_rate_hz=None,
        min_samples=max([branch.backbone.min_samples for branch in system.encoders], default=system.rate_hz),
        clip_s=card.clip_s,
        fixed_length=len(system.branches) > len(kinds),
        front_end="; ".join(FRONT_ENDS[kind] for kind in kinds) or "spectrum of the whole clip",
        licence="that of the data and the checkpoint it was trained from",
        source=folder.name,
        sha256=sha256,
        settings={"layout": "asd-train system", "distance": chosen, **_selected(card.training)},
    )


def _selected(training: Mapping[str, Any]) -> dict[str, str]:
    """How test labels chose the system, where they did: the bundle says so too."""
    return {"selected": str(training["selected"])} if training.get("selected") else {}


def _outputs(encoder: PooledEncoder, distance: Distance, labels: bool) -> list[Output]:
    sizes = [encoder.width(layer) for layer in encoder.layers]
    blocks = encoder.blocks if distance == "beam" else sizes if len(sizes) > 1 and distance == "whitened" else []
    outputs = [Output(name="embedding", dim=encoder.dim, distance=distance, blocks=blocks)]
    if labels:
        _check_labels(encoder.backbone)
        outputs += [
            Output(name=name, dim=len(classes), distance="euclidean", role="nuisance", labels=list(classes.values()))
            for name, classes in FAMILIES.items()
        ]
    return outputs


def _check_labels(backbone: Backbone) -> None:
    """BEATs numbers its classes in an order of its own, and EAT's is not documented."""
    if backbone.name != "efficientat" or backbone.config["num_classes"] != 527:
        raise UsageError("--labels needs an EfficientAT checkpoint with AudioSet's 527 classes")


class _Single(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveform: Tensor) -> tuple[Tensor, ...]:
        return (self.model(waveform),)


class _Labelled(nn.Module):
    """Embedding, and the probabilities of the classes that no machine makes, by families."""

    def __init__(self, encoder: PooledEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, waveform: Tensor) -> tuple[Tensor, ...]:
        backbone = self.encoder.backbone
        *layers, last = backbone(waveform, layers=(*self.encoder.layers, backbone.layers))
        probabilities = torch.sigmoid(backbone.logits(last))
        families = [probabilities[:, list(classes)] for classes in FAMILIES.values()]
        return self.encoder.pooled(layers), *families


def _name(path: Path) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.name.removesuffix(".pt").removesuffix(".safetensors"))
    return plain.lstrip("-_.")[:64] or "encoder"
