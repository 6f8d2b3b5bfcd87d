"""A system as a configuration file: data, encoder branches, objective, optimisation (configs/train/*.yaml).

Frozen structs with their defaults beside them; an unknown key is an error that names the file and the key.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from asd_train.data import ClassOptions, DataSource
from asd_train.pooling import PATTERN
from asd_train.scoring import Scoring

Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]
Layers = Literal["last", "all"] | list[int]
Pooling = Annotated[str, Meta(pattern=PATTERN)]  # asd_train.pooling
Pool = Annotated[str, Meta(pattern=rf"{PATTERN}|^attentive$")]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Lora(_Section, frozen=True):
    """W + alpha / rank * B A on the named linear layers; merged into them after training."""

    rank: Count = 64
    alpha: Positive = 8.0  # peft's default, which ASDKit keeps
    dropout: Share = 0.0
    targets: list[str] | None = None  # names of layers; None = the encoder's usual ones


class SpecAugment(_Section, frozen=True):
    """One time and one frequency mask per clip on the normalised filterbank."""

    width: Count = 80
    probability: Share = 0.5


class EncoderBranch(_Section, frozen=True, tag_field="kind", tag="encoder"):
    """A pre-trained audio encoder, pooled to one vector per clip."""

    checkpoint: str | None = None  # a public checkpoint, a run of ours, or None = random weights of `encoder`, `size`
    encoder: Literal["beats", "eat", "efficientat", "bandsplit"] | None = None  # only without a checkpoint
    size: str = "base"
    rate_hz: Count | None = None  # of a band-split encoder; None = its own
    tuning: Literal["full", "lora", "frozen"] = "full"
    lora: Lora = Lora()
    batch_norm: Literal["train", "frozen"] = "train"  # frozen: by the checkpoint's statistics, which stay as they are
    layers: Layers = "last"  # several are pooled one by one and joined
    pool: Pool = "mean"
    dim: Count | None = None  # a dense layer to this size behind the pooling; None = none
    spec_augment: SpecAugment | None = None

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.encoder is None):
            raise ValueError("give either checkpoint, or encoder (beats, eat, efficientat, bandsplit) and size")


class SpectrumBranch(_Section, frozen=True, tag_field="kind", tag="fft"):
    """Magnitude spectrum of the whole clip -> 1-D CNN; needs `clip_s`."""

    dim: Count = 128
    width: Count = 128
    normalise: Literal["none", "features"] = "none"  # features: the branch's output has length 1


Branch = EncoderBranch | SpectrumBranch


class Output(_Section, frozen=True):
    """What is scored. `layers` None: what was trained, all branches joined; else layers of the encoders."""

    layers: Layers | None = None
    pool: Pooling = "mean"  # of `layers`


class Model(_Section, frozen=True):
    branches: Annotated[list[Branch], Meta(min_length=1)]
    output: Output = Output()

    def __post_init__(self) -> None:
        if not any(isinstance(branch, EncoderBranch) for branch in self.branches):
            raise ValueError("branches: at least one must be of kind encoder")


class ArcFace(_Section, frozen=True, tag_field="kind", tag="arcface"):
    scale: Positive = 30.0
    margin: Annotated[float, Meta(ge=0, lt=3)] = 0.5
    centres: Count = 1  # above 1: sub-center ArcFace
    # Classes whose name contains the text get this many instead, e.g. {"fan/": 8}; the first that fits.
    centres_of: dict[str, Count] = {}


class AdaCos(_Section, frozen=True, tag_field="kind", tag="adacos"):
    centres: Count = 16  # above 1: sub-cluster AdaCos (SCAdaCos)
    dynamic: bool = False  # the scale follows the batch
    trainable: bool = True  # False: centres stay at their random initial directions


ClassLoss = ArcFace | AdaCos


class NoiseMix(_Section, frozen=True):
    """Supplemental noise of the same machine, added to training clips; machines without any stay clean."""

    probability: Share = 0.5
    snr_db: tuple[float, float] = (-5.0, 10.0)


class Classify(_Section, frozen=True, tag_field="kind", tag="classify"):
    """Classification of machine, attributes and domain (`classes`)."""

    loss: ClassLoss
    mixup: Share = 0.0  # probability per clip
    exchange: Share = 0.0  # feature exchange between branches, probability per clip; adds a second head
    partners: Literal["random", "flipped"] = "random"  # of mixup and exchange; flipped: the batch in reverse order
    noise: NoiseMix | None = None


class OsScl(_Section, frozen=True, tag_field="kind", tag="os_scl"):
    """One-stage supervised contrastive learning: mixup, ArcFace, SupCon behind a perturbation head."""

    loss: ArcFace
    temperature: Positive = 0.04
    supcon: Annotated[float, Meta(ge=0)] = 1.0  # weight
    mixup_beta: Positive | None = 0.5  # one lambda ~ Beta(b, b) a batch; None = no mixup
    shrink: Annotated[float, Meta(ge=0, lt=1)] = 2e-6  # online weights *= 1 - shrink after every step
    noise: NoiseMix | None = None


class Separate(_Section, frozen=True, tag_field="kind", tag="separate"):
    """Source separation as auxiliary task: the clean filterbank from a noisy mixture, token by token."""

    decoder_blocks: Count = 3
    variants: Annotated[int, Meta(ge=0)] = 9  # noisy copies of each supplemental clip beside itself
    snr_db: tuple[float, float] = (-5.0, 10.0)
    decoder_share: Share = 1.0 / 3.0  # of the steps in which the decoder still learns; frozen afterwards


Objective = Classify | OsScl | Separate


class Schedule(_Section, frozen=True):
    kind: Literal["constant", "cosine", "inverse_sqrt"] = "cosine"
    warmup: Annotated[int, Meta(ge=0)] = 0  # optimiser steps
    final: Share = 0.0  # share of the peak rate that cosine ends at


class Train(_Section, frozen=True):
    """Optimisation. A step is one update of the weights: `accumulate` batches on every GPU."""

    steps: Count | None = None
    epochs: Count | None = None
    batch_size: Count = 32  # per GPU
    accumulate: Count = 1
    lr: Positive = 5e-5
    head_lr: Positive | None = None  # of everything that is new (dense layers, heads); None = lr
    weight_decay: Annotated[float, Meta(ge=0)] = 0.01
    betas: tuple[Share, Share] = (0.9, 0.999)
    schedule: Schedule = Schedule()
    clip_norm: Positive | None = None  # largest norm of the gradients of each branch, and of what is on top of them
    ema: Share | None = None  # decay; the average is what is scored
    precision: Literal["bf16", "fp32"] = "bf16"
    checkpoint_every: Count = 1000
    snapshots: list[Count] = []  # steps at which the finished system is written too, for ensembles
    seed: int = 0
    workers: Annotated[int, Meta(ge=0)] = 8
    cache_gb: Annotated[float, Meta(ge=0)] = 8.0  # decoded clips kept in memory

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")


class System(_Section, frozen=True):
    """One anomaly detector; without `objective` nothing is trained (GenRep)."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    data: Annotated[list[DataSource], Meta(min_length=1)]
    model: Model
    classes: ClassOptions = ClassOptions()
    clip_s: Positive | None = 10.0  # cut or filled to this length; None = any length, padded and masked
    fill: Literal["tile", "pad"] = "tile"  # of clips shorter than `clip_s`: repeated, or followed by zeros
    crop: Literal["random", "start"] = "random"  # of longer clips in training; in evaluation always the start
    channel: Annotated[int, Meta(ge=0)] = 0  # of the recordings: the microphone near the machine
    far: Annotated[int, Meta(ge=0)] | None = None  # channel of a microphone that hears the room; subtracted coherently
    objective: Objective | None = None
    train: Train | None = None
    # dev_score: of `train.snapshots` and the end the step with the best official score on labelled test clips is kept,
    # and told wherever the system goes (asd_train.selection)
    select: Literal["last", "dev_score"] = "last"
    scoring: Scoring = Scoring()

    def __post_init__(self) -> None:
        if (self.objective is None) != (self.train is None):
            raise ValueError("objective and train belong together: give both, or none to train nothing")
        if self.select != "last" and not (self.train and self.train.snapshots):
            raise ValueError("select: dev_score chooses among train.snapshots: name their steps")
        if self.clip_s is None and any(isinstance(b, SpectrumBranch) for b in self.model.branches):
            raise ValueError("an fft branch needs clip_s: its network has a fixed input length")


def tiny(system: System, steps: int = 12, kept: Collection[str] = ()) -> System:
    """The same system with small random encoders and a few steps: tries a configuration in seconds. `kept`: keys of
    `train` that stay as they are."""
    replace = msgspec.structs.replace
    branches = [_tiny_branch(branch) for branch in system.model.branches]
    schedule = system.train and system.train.schedule
    train = system.train and replace(
        system.train,
        steps=steps,
        epochs=None,
        batch_size=min(8, system.train.batch_size),
        accumulate=min(2, system.train.accumulate),
        lr=2e-3,
        head_lr=None,
        schedule=schedule and replace(schedule, warmup=steps if schedule.kind == "inverse_sqrt" else 0),
        ema=system.train.ema and 0.5,
        precision="fp32",
        snapshots=[min(s, steps) for s in system.train.snapshots[:1]],
        workers=0,
    )
    train = train and keep(train, system.train, kept)
    return replace(
        system,
        model=replace(system.model, branches=branches, output=_tiny_output(system.model.output)),
        clip_s=system.clip_s and min(2.0, system.clip_s),
        train=train,
    )


def keep(small: Train, own: Train | None, keys: Collection[str]) -> Train:
    """`small` with these values of `own`; steps and epochs exclude each other."""
    values = {key: getattr(own, key) for key in keys if key in Train.__struct_fields__}
    if values.keys() & {"steps", "epochs"}:
        values = {"steps": None, "epochs": None, **values}
    return msgspec.structs.replace(small, **values)


def _tiny_branch(branch: Branch) -> Branch:
    replace = msgspec.structs.replace
    if isinstance(branch, SpectrumBranch):
        return replace(branch, dim=min(32, branch.dim), width=32)
    encoder = branch.encoder or family(branch.checkpoint or "")
    return replace(
        branch,
        checkpoint=None,
        encoder=encoder,
        size="tiny",
        lora=replace(branch.lora, rank=4),
        layers=branch.layers if isinstance(branch.layers, str) else [1],
        dim=branch.dim and min(32, branch.dim),
        spec_augment=branch.spec_augment and replace(branch.spec_augment, width=8),
    )


def _tiny_output(output: Output) -> Output:
    layers = output.layers
    return output if layers is None or isinstance(layers, str) else msgspec.structs.replace(output, layers=[1])


def size_of(checkpoint: str) -> str:
    """What size a checkpoint's name promises."""
    name = "/".join(Path(checkpoint).parts[-2:]).lower()
    width = re.search(r"mn\d\d", name)
    return width[0] if width else "large" if "large" in name else "base"


def family(checkpoint: str) -> Literal["beats", "eat", "efficientat", "bandsplit"]:
    """What encoder a checkpoint's name promises."""
    name = "/".join(Path(checkpoint).parts[-2:]).lower()  # runs/b_lbeats/system
    if "bandsplit" in name:
        return "bandsplit"
    return "beats" if "beats" in name else "eat" if "eat" in name else "efficientat"
