"""What `asd-train evaluate` is pointed at: an .npz of embeddings, a run of ours, or a public checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from asd_agent.errors import UsageError
from asd_agent.types import Floats
from asd_train.data import Clip, DataSource
from asd_train.scoring import Scoring
from asd_train.vectors import join_arrays, match, read_blocks, read_npz

Progress = Callable[[str, int, int], None]  # (what, done, in all)


@dataclass(frozen=True)
class Options:
    """Of the command line; what does not concern the subject is ignored."""

    arrays: tuple[str, ...] = ()
    layers: str = "last"
    pool: str = "mean"
    device: str = "auto"
    batch_size: int = 32
    workers: int = 0


@dataclass(frozen=True)
class Subject:
    """A source of embeddings; `data` and `scoring` are its own wishes."""

    embed: Callable[[Sequence[Clip], Progress], Floats]  # [clips, dim]
    blocks: tuple[int, ...] = ()  # values in each band of the embedding; empty = not known
    data: tuple[DataSource, ...] = ()
    scoring: Scoring = field(default_factory=Scoring)
    selected: str = ""  # what was chosen by test labels


def open_subject(path: Path, options: Options) -> Subject:
    """Recognise `path` by its content; raises UsageError, AsdError."""
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder (an .npz, a run of asd-train fit, a checkpoint, or a YAML)")
    if path.suffix == ".npz":
        return _file(path, options)
    for folder in (path, path / "system"):
        if (folder / "system.json").is_file():
            return _system(folder, options)
    return _checkpoint(path, options)


def _file(path: Path, options: Options) -> Subject:
    def embed(clips: Sequence[Clip], progress: Progress) -> Floats:
        files, arrays = read_npz(path)
        return match(files, join_arrays(arrays, options.arrays, path), clips)

    return Subject(embed, read_blocks(path))


def _system(folder: Path, options: Options) -> Subject:
    from asd_train.embed import pick_device
    from asd_train.embed_clips import embed_clips
    from asd_train.model import load_system

    system, card = load_system(folder)
    data = card.training.get("config", {}).get("data", [])

    def embed(clips: Sequence[Clip], progress: Progress) -> Floats:
        return embed_clips(
            system,
            clips,
            card.rate_hz,
            clip_s=card.clip_s,
            fill=card.fill,
            channel=card.channel,
            far=card.far,
            device=pick_device(options.device),
            batch_size=options.batch_size,
            workers=options.workers,
            progress=lambda done, total: progress("embedding", done, total),
        )

    sources = tuple(msgspec.convert(data, list[DataSource]))
    return Subject(embed, tuple(system.blocks), sources, card.scoring, card.training.get("selected", ""))


def _checkpoint(path: Path, options: Options) -> Subject:
    from asd_train.backbones import load_backbone
    from asd_train.embed import PooledEncoder, pick_device
    from asd_train.embed_clips import embed_clips
    from asd_train.pooling import parse_layers

    backbone = load_backbone(path)
    encoder = PooledEncoder(backbone, parse_layers(options.layers, backbone), options.pool)

    def embed(clips: Sequence[Clip], progress: Progress) -> Floats:
        return embed_clips(
            encoder,
            clips,
            backbone.rate_hz,
            device=pick_device(options.device),
            batch_size=options.batch_size,
            workers=options.workers,
            progress=lambda done, total: progress("embedding", done, total),
        )

    return Subject(embed, tuple(encoder.blocks))
