"""All of it in order: sounds, teacher, training, calibration, weights.

run/student/student.safetensors, student.json
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from asd_train import state
from asd_train.config import Train
from asd_train.distil.calibration import calibrate
from asd_train.distil.learner import StudentLearner
from asd_train.distil.mixtures import Mixer
from asd_train.distil.recipe import Distil
from asd_train.distil.stems import Progress, Stems, stems_of
from asd_train.distil.student import Student, save_student
from asd_train.feed import steps_of
from asd_train.loop import Job, make_accelerator, train
from asd_train.origin import Origin, fingerprint_of, revision


def distil(
    recipe: Distil,
    folder: Path,
    *,
    resume: bool = False,
    tensorboard: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train and calibrate; returns the folder of the student. Raises AsdError as `fit` does."""
    accelerator = make_accelerator()
    stems = stems_of(recipe, folder / "stems.npz", progress)
    origin = Origin(
        config=msgspec.json.decode(msgspec.json.encode(recipe)),
        data=fingerprint_of(stems.db, stems.role, stems.label, stems.aside),
        processes=accelerator.num_processes,
        revision=revision(),
    )
    if accelerator.is_main_process:
        state.claim(folder, origin, resume, "student")
    learner = learner_of(recipe, stems)
    mixer = Mixer(stems, recipe.mix, recipe.train.seed)
    steps = steps_of(recipe.train, per_epoch(stems, recipe.train), accelerator.num_processes)

    def save(at: Path, step: int) -> None:
        aside = Mixer(stems, recipe.mix, recipe.train.seed, aside=True)
        if accelerator.is_main_process:
            figures = calibrate(learner, mixer, aside, recipe.calibration)
            about = {"steps": step, "figures": msgspec.to_builtins(figures), **msgspec.structs.asdict(origin)}
            save_student(at, learner.student, about)

    train(
        learner,
        lambda done, rank, processes: mixer.feed(recipe.train.batch_size, done, rank, processes),
        Job(folder, recipe.train, steps, origin, tensorboard),
        accelerator,
        lambda step: save(folder / "snapshots" / f"step-{step:08d}", step),
    )
    save(folder / "student", steps)
    return folder / "student"


def learner_of(recipe: Distil, stems: Stems) -> StudentLearner:
    torch.manual_seed(recipe.train.seed)
    return StudentLearner(Student(recipe.width), recipe.losses, len(stems.names), stems.tokens.shape[1])


def per_epoch(stems: Stems, settings: Train) -> int:
    """Batches that are as many seconds as there are stems."""
    return max(1, len(stems.db) // settings.batch_size)
