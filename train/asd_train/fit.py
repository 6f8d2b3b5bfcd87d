"""Fine-tuning: a configuration becomes data, a system and an objective; the loop does the rest.

run/
    config.yaml             what was asked for, changes included
    log.jsonl               losses, learning rate and throughput by step
    checkpoints/            to resume from (asd_train.state)
    snapshots/step-N/       the system at the steps of `train.snapshots`
    selection.json          with `select: dev_score`: what was chosen, and by which figures
    system/                 the result: what embed, evaluate and asd-export take
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from asd_agent.errors import UsageError
from asd_train import config as cfg
from asd_train import objectives, state
from asd_train.config import System as SystemConfig
from asd_train.data import ClassMap, Clip, load_clips, training_clips
from asd_train.data.audio import AudioCache, Progress
from asd_train.data.dataset import Batches, ClipDataset
from asd_train.feed import Places, feed_of, steps_of
from asd_train.loop import Job, make_accelerator, train
from asd_train.model import System, build_system, describe, save_system
from asd_train.noise import NoisePool
from asd_train.origin import origin_of
from asd_train.progress import log_selection
from asd_train.selection import keep_best, labelled_clips


@dataclass(frozen=True)
class Material:
    """What a configuration finds: training clips, their classes, and noise to mix in."""

    config: SystemConfig
    clips: list[Clip]
    classes: ClassMap | None
    noise: list[Clip]

    @property
    def used(self) -> list[tuple[Clip, int]]:
        """Everything that training sees, with its class."""
        rows = self.classes.labels(self.clips).tolist() if self.classes else [-1] * len(self.clips)
        return [*zip(self.clips, rows, strict=True), *((clip, -1) for clip in self.noise)]

    @cached_property
    def places(self) -> Places:
        """Clip of each entry of an epoch: separation meets supplemental clips 1 + `variants` times."""
        objective = self.config.objective
        copies = 1 + objective.variants if isinstance(objective, cfg.Separate) else 1
        return np.repeat(np.arange(len(self.clips)), [copies if c.kind == "clean" else 1 for c in self.clips])


def gather(config: SystemConfig) -> Material:
    """Find the training clips and their classes; raises UsageError when there is nothing to learn from."""
    found = training_clips(load_clips(config.data))
    noise = [clip for clip in found if clip.kind == "noise"]
    if config.objective is None:
        return Material(config, found, None, [])
    if isinstance(config.objective, cfg.Separate):
        return Material(config, [clip for clip in found if clip.kind != "noise"], None, noise)
    classes = ClassMap.build(found, config.classes)
    return Material(config, classes.keep(found), classes, noise if config.objective.noise else [])


def audio_of(material: Material, rate_hz: int, limit_gb: float = 0.0, progress: Progress | None = None) -> AudioCache:
    config, paths = material.config, [clip.path for clip in material.clips]
    return AudioCache(paths, rate_hz, config.channel, limit_gb=limit_gb, progress=progress, far=config.far)


def batches_of(material: Material, audio: AudioCache) -> tuple[ClipDataset, Batches]:
    config, settings = material.config, _settings(material.config)
    labels = material.classes.labels(material.clips) if material.classes else None
    dataset = ClipDataset(material.clips, audio, labels, config.clip_s, config.crop, config.fill, settings.seed)
    lengths = dataset.lengths[material.places]
    return dataset, Batches(lengths, settings.batch_size, seed=settings.seed, drop_last=True)


def learner_of(material: Material, system: System) -> objectives.SystemLearner:
    """The system under its objective, adapters in place."""
    config, objective = material.config, material.config.objective
    system.adapt()
    padded = config.clip_s is None
    pool = NoisePool(material.clips, material.noise, system.rate_hz) if material.noise else None
    if isinstance(objective, cfg.Separate):
        supplemental = [clip.split == "supplemental" for clip in material.clips]
        return objectives.Separate(system, objective, supplemental, padded, pool)
    names = material.classes.names if material.classes else ()
    if isinstance(objective, cfg.OsScl):
        return objectives.OsScl(system, objective, names, padded, pool)
    assert objective is not None
    return objectives.Classify(system, objective, names, padded, pool)


def fit(
    config: SystemConfig,
    folder: Path,
    *,
    resume: bool = False,
    tensorboard: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train the system (or only assemble it, without an objective); returns the folder of the result.

    Raises AsdError with one clear line; KeyboardInterrupt when stopped by a signal, after saving.
    """
    accelerator = make_accelerator()
    material = gather(config)
    system = build_system(config)
    names = list(material.classes.names) if material.classes else []
    origin = origin_of(config, material.used, accelerator.num_processes)
    if accelerator.is_main_process:
        state.claim(folder, origin, resume, "system")

    def save(at: Path, step: int) -> None:
        if accelerator.is_main_process:
            about = {"steps": step, **msgspec.structs.asdict(origin)}
            save_system(system.merged(), describe(system, config, names, about), at)

    if config.train is None:
        save(folder / "system", 0)
        return folder / "system"
    if config.select != "last":
        labelled_clips(config)  # what is missing for the choice is said before the training
    settings = config.train
    audio = audio_of(material, system.rate_hz, settings.cache_gb, progress)
    dataset, batches = batches_of(material, audio)
    steps = steps_of(settings, len(batches), accelerator.num_processes)
    learner = learner_of(material, system)
    job = Job(folder, settings, steps, origin, tensorboard)
    train(
        learner,
        feed_of(dataset, batches, material.places, settings.workers),
        job,
        accelerator,
        lambda step: save(folder / "snapshots" / f"step-{step:08d}", step),
    )
    if config.select == "last":
        save(folder / "system", steps)
    elif accelerator.is_main_process:
        save(folder / "snapshots" / f"step-{steps:08d}", steps)
        kept, scores = keep_best(config, folder, str(accelerator.device))
        log_selection(folder, steps, kept, scores[kept])
    accelerator.wait_for_everyone()
    return folder / "system"


def _settings(config: SystemConfig) -> cfg.Train:
    if config.train is None:
        raise UsageError(f"{config.name}: nothing is trained, there are no batches")
    return config.train
