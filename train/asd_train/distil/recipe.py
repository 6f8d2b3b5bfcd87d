"""What `asd-train distil` is told (configs/train/own_default.yaml): sounds, mixtures, teacher, losses, optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from asd_train.config import Positive, Schedule, Share, Train

Family = Literal["voices_and_animals", "music", "weather", "traffic", "tools_and_impacts", "alarms"]
FAMILIES: tuple[Family, ...] = ("voices_and_animals", "music", "weather", "traffic", "tools_and_impacts", "alarms")
Weight = Annotated[float, Meta(ge=0)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Recordings(_Section, frozen=True, kw_only=True):
    """A sound file, or a folder of them."""

    path: str
    skip: Annotated[int, Meta(ge=0)] = 0  # files of the folder, in order of their names
    share: Share = 1.0  # of every recording, from its beginning


class Nuisance(Recordings, frozen=True, kw_only=True):
    family: Family


class Synthetic(_Section, frozen=True, kw_only=True):
    """What is computed instead of recorded."""

    machines: Annotated[int, Meta(ge=2)] = 60  # of `asd-train synth`
    seconds: Positive = 16.0  # of each machine
    everyday_s: Positive = 400.0  # of each family
    fault_s: Positive = 240.0  # of each kind of fault


class Mix(_Section, frozen=True, kw_only=True):
    """How one second is put together; levels are powers over the machine's."""

    nuisance: Share = 0.5  # probability
    nuisance_db: tuple[float, float] = (-20.0, 15.0)
    fault: Share = 0.45  # probability
    fault_db: tuple[float, float] = (-20.0, 5.0)
    response_db: Annotated[float, Meta(ge=0)] = 5.0  # spread of the responses between source and microphone


class Teacher(_Section, frozen=True, kw_only=True):
    """Its tokens of every stem are the student's targets, mixed as the stems are."""

    checkpoint: str
    layers: tuple[int, ...] = (4, 7, 11, 13, 16)


class Losses(_Section, frozen=True, kw_only=True):
    """Weights of what is learnt beside the families of everyday sound."""

    fault: Weight = 1.0
    ratio: Weight = 0.1
    identity: Weight = 0.2
    teacher: Weight = 0.5


class Calibration(_Section, frozen=True, kw_only=True):
    """The limit is set on further mixtures, so that few windows with a fault are called nuisance."""

    windows: Annotated[int, Meta(ge=20)] = 1000  # with a fault, as many with nuisance, as many clean
    called: Share = 0.01  # share of clean windows that may be called nuisance; three times that with a fault


class Distil(_Section, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    machines: list[Recordings] = []
    nuisance: Annotated[list[Nuisance], Meta(min_length=1)]
    synthetic: Synthetic = Synthetic()
    mix: Mix = Mix()
    teacher: Teacher | None = None
    losses: Losses = Losses()
    calibration: Calibration = Calibration()
    width: Positive = 1.0  # of the network
    train: Train


def tiny(recipe: Distil, steps: int = 6) -> Distil:
    """The same with a narrow student, few sounds and a few steps, without a teacher."""
    replace = msgspec.structs.replace
    train = replace(
        recipe.train, steps=steps, epochs=None, batch_size=8, accumulate=1, schedule=Schedule(), checkpoint_every=steps,
        snapshots=[], workers=0, ema=None, precision="fp32",
    )  # fmt: skip
    return replace(
        recipe,
        synthetic=Synthetic(machines=6, seconds=4.0, everyday_s=4.0, fault_s=4.0),
        teacher=None,
        calibration=Calibration(windows=20),
        width=0.25,
        train=train,
    )
