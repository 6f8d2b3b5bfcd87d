"""Sound files through an encoder: the work of `asd-train embed`, and the pooled encoder that export takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from asd_agent.capture.files import recordings
from asd_agent.errors import SourceError, UsageError
from asd_agent.files import save_arrays
from asd_train.backbones import Backbone, Tokens, load_backbone
from asd_train.data.audio import read_audio
from asd_train.pooling import band_sizes, parse_layers, pool, pooled_dim


class PooledEncoder(nn.Module):
    """Waveform [B, N] -> the pooled vectors of some layers, joined: [B, dim]"""

    def __init__(self, backbone: Backbone, layers: Sequence[int], how: str) -> None:
        super().__init__()
        self.backbone, self.layers, self.how = backbone, tuple(layers), how
        self.dim = pooled_dim(backbone, self.layers, how)

    @property
    def blocks(self) -> list[int]:
        """Values in each band of the joined vector."""
        return band_sizes(self.backbone, self.layers, self.how)

    def width(self, layer: int) -> int:
        """What one layer contributes to the joined vector."""
        return pooled_dim(self.backbone, (layer,), self.how)

    def forward(self, waveform: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        return self.pooled(self.backbone(waveform, padding_mask, self.layers))

    def pooled(self, layers: Sequence[Tokens]) -> Tensor:
        return torch.cat([pool(tokens, self.how) for tokens in layers], 1)


def embed_files(
    checkpoint: str | Path,
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    layers: str = "last",
    how: str = "mean",
    device: str = "auto",
) -> int:
    """Write `file` [n] and `embedding` [n, dim] of every recording; returns n.

    how "none" adds `tokens` [n, time, frequency, dim of the joined layers], zero-padded along time, and
    `frames` [n], how many steps of time are sound; `embedding` is then their mean. A run of asd-train fit embeds
    as it was trained to, without a choice of layers and pooling. Raises AsdError.
    """
    for folder in (Path(checkpoint), Path(checkpoint) / "system"):
        if (folder / "system.json").is_file():
            if (layers, how) != ("last", "mean"):
                raise UsageError(
                    f"{folder}: a trained system has its own layers and pooling; leave --layers and --pool"
                )
            return _embed_by_system(folder, recordings(paths), Path(output), pick_device(device))
    backbone = load_backbone(checkpoint).to(pick_device(device))
    encoder = PooledEncoder(backbone, parse_layers(layers, backbone), "mean" if how == "none" else how)
    files = recordings(paths)
    arrays: dict[str, npt.NDArray[Any]] = {"file": np.array([str(path) for path in files])}
    embeddings, tokens = [], []
    for found in _tokens(encoder, files):
        embeddings.append(encoder.pooled(found)[0].cpu().numpy())
        if how == "none":
            tokens.append(_joined(found).cpu().numpy())
    arrays["embedding"] = np.stack(embeddings)
    if how == "none":
        arrays["frames"] = np.array([len(one) for one in tokens])
        longest = int(arrays["frames"].max())
        arrays["tokens"] = np.stack([np.pad(t, ((0, longest - len(t)), (0, 0), (0, 0))) for t in tokens])
    save_arrays(Path(output), arrays)
    return len(files)


def _embed_by_system(folder: Path, files: Sequence[Path], output: Path, device: torch.device) -> int:
    from asd_train.data.clip import Clip
    from asd_train.embed_clips import embed_clips
    from asd_train.model import load_system

    system, card = load_system(folder)
    clips = [Clip(path=str(path), machine="") for path in files]
    found = embed_clips(
        system,
        clips,
        card.rate_hz,
        clip_s=card.clip_s,
        fill=card.fill,
        device=device,
        channel=card.channel,
        far=card.far,
    )
    save_arrays(output, {"file": np.array([clip.path for clip in clips]), "embedding": found.astype(np.float32)})
    return len(files)


def _tokens(encoder: PooledEncoder, files: Sequence[Path]) -> Iterator[tuple[Tokens, ...]]:
    backbone = encoder.backbone
    device = next(backbone.parameters()).device
    for path in files:
        samples = torch.from_numpy(read_audio(str(path), backbone.rate_hz)).to(device)
        try:
            with torch.inference_mode():
                yield backbone(samples[None], layers=encoder.layers)
        except UsageError as error:
            raise SourceError(f"{path}: {error}") from error


def _joined(layers: Sequence[Tokens]) -> Tensor:
    """[time, frequency, dim of all layers]; UsageError where the layers differ in their grid."""
    grids = {tokens.features.shape[1:3] for tokens in layers}
    if len(grids) > 1:
        raise UsageError("these layers differ in time or frequency: ask for --pool none one layer at a time")
    return torch.cat([tokens.features[0] for tokens in layers], 2)


def pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device
