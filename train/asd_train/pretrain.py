"""Self-supervised pre-training of EAT and of the band-split encoder, from random weights or from a checkpoint.

A teacher, the running average of the student, sees the whole clip; the student sees a fifth of its patches and
predicts the teacher's features: those of the hidden patches (frame objective, through a convolutional decoder) and
their mean over the clip (utterance objective, from the class token). Chen et al., "EAT: Self-Supervised
Pre-Training with Efficient Audio Transformer", 2024. Of a band-split encoder every band is a clip of its own.

    run/encoder/     the student: a checkpoint for configs, asd-train embed and asd-export
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor

from asd_agent.errors import UsageError
from asd_train import state
from asd_train.backbones import Backbone, at_rate, build, load_backbone
from asd_train.backbones.eat import Eat
from asd_train.backbones.vit import Vit
from asd_train.checkpoints import save_checkpoint
from asd_train.config import Count, Positive, Schedule, Share, Train, family, keep
from asd_train.data import Clip, DataSource, load_clips, training_clips
from asd_train.data.audio import AudioCache, Progress
from asd_train.data.dataset import Batch, Batches, ClipDataset
from asd_train.feed import Places, feed_of, steps_of
from asd_train.folders import written_whole
from asd_train.layers.decoder import ConvDecoder
from asd_train.layers.masking import inverse_blocks
from asd_train.loop import Job, Learner, make_accelerator, train
from asd_train.origin import origin_of


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Masking(_Section, frozen=True):
    hidden: Annotated[float, Meta(gt=0, lt=1)] = 0.8  # share of the patches
    adjust: Annotated[float, Meta(ge=0, lt=1)] = 0.07  # more blocks, since they overlap
    block: Count = 5  # patches along time and along frequency
    clones: Count = 16  # differently masked copies of each clip, which share one look of the teacher


class Decoder(_Section, frozen=True):
    blocks: Count = 6
    kernel: Count = 3


class Teacher(_Section, frozen=True):
    """Decay of its average, rising linearly."""

    start: Share = 0.9998
    end: Share = 0.99999
    steps: Count = 100_000


class Pretrain(_Section, frozen=True):
    """configs/train/*_pretrain.yaml; the defaults are those of EAT-base."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    data: Annotated[list[DataSource], Meta(min_length=1)]
    train: Train
    checkpoint: str | None = None  # to continue from; None = random weights of `encoder` and `size`
    encoder: Literal["eat", "bandsplit"] = "eat"  # without a checkpoint
    size: str = "base"
    rate_hz: Count | None = None  # of a band-split encoder; None = its own
    clip_s: Positive = 10.0
    masking: Masking = Masking()
    decoder: Decoder = Decoder()
    teacher: Teacher = Teacher()
    utterance: Annotated[float, Meta(ge=0)] = 1.0  # weight of the utterance objective
    # Over the clones of a batch. The released code multiplies this loss by the number of hidden patches before it
    # divides the sum of all losses by it (models/EAT_pretraining.py): what remains is a sum over the clones.
    utterance_over: Literal["sum", "mean"] = "sum"


def tiny(config: Pretrain, steps: int = 6, kept: Collection[str] = ()) -> Pretrain:
    """The same with a small random encoder and a few steps. `kept`: keys of `train` that stay as they are."""
    train = msgspec.structs.replace(
        config.train, steps=steps, epochs=None, batch_size=4, accumulate=1, lr=1e-3, precision="fp32",
        schedule=Schedule(), snapshots=[], workers=0,
    )  # fmt: skip
    return msgspec.structs.replace(
        config,
        checkpoint=None,
        encoder="bandsplit" if config.checkpoint and family(config.checkpoint) == "bandsplit" else config.encoder,
        size="tiny",
        clip_s=2.0,
        masking=msgspec.structs.replace(config.masking, clones=2),
        decoder=msgspec.structs.replace(config.decoder, blocks=1),
        teacher=Teacher(start=0.9, end=0.9),
        train=keep(train, config.train, kept),
    )


class EatLearner(Learner[Batch]):
    """Student, teacher and decoder."""

    def __init__(self, student: Vit, config: Pretrain) -> None:
        super().__init__()
        self.config, self.student = config, student
        for part in (student.fc_norm, student.head) if isinstance(student, Eat) else ():  # of a fine-tuned checkpoint
            if part is not None:
                part.requires_grad_(False)
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.decoder = ConvDecoder(student.dim, student.dim, blocks=config.decoder.blocks, kernel=config.decoder.kernel)

    def pretrained(self) -> set[int]:
        return {id(p) for p in self.student.parameters()}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        mel, _ = self.student.frontend(batch.waveform)
        targets = self.targets(mel)  # [B * bands, patches, dim]
        masking, rows = self.config.masking, self.student.rows
        grid = (targets.shape[1] // rows, rows)
        kept = inverse_blocks(
            len(targets) * masking.clones, grid, hidden=masking.hidden, adjust=masking.adjust, block=masking.block
        ).to(mel.device)
        targets = targets.repeat_interleave(masking.clones, 0)
        token, patches = self.student_features(mel, kept)
        estimate = self.decode(patches, kept, grid)
        hidden = torch.ones(targets.shape[:2], device=mel.device).scatter(1, kept, 0.0)
        frame = (squared_error(estimate, targets) * hidden).sum() / hidden.sum()
        per_clone = squared_error(token, targets.mean(1))
        utterance = per_clone.sum() if self.config.utterance_over == "sum" else per_clone.mean()
        loss = frame + self.config.utterance * utterance
        return {"loss": loss, "frame": frame, "utterance": utterance}

    @torch.no_grad()
    def targets(self, mel: Tensor) -> Tensor:
        """Mean over the teacher's blocks of their feed-forward outputs, normalised: [B * bands, patches, dim]."""
        teacher = self.teacher
        patches = teacher.embed_patches(mel)
        x = teacher.pre_norm(torch.cat((teacher.class_tokens(len(mel)), patches), 1))
        total = torch.zeros_like(patches, dtype=torch.float32)
        blocks: list[Any] = list(teacher.blocks)
        for block in blocks:
            x = block.norm1(x + block.attn(x, None))
            inner = block.mlp(x)
            x = block.norm2(x + inner)
            total += F.instance_norm(inner[:, 1:].float().transpose(1, 2)).transpose(1, 2)
        return F.layer_norm(total / len(blocks), total.shape[-1:])

    def student_features(self, mel: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """kept [B * bands * clones, k] places -> class tokens [the same, dim], features [the same, k, dim]."""
        student, clones = self.student, self.config.masking.clones
        patches = student.embed_patches(mel).repeat_interleave(clones, 0)
        patches = patches.gather(1, kept[..., None].expand(-1, -1, patches.shape[-1]))
        tokens = student.class_tokens(len(mel)).repeat_interleave(clones, 0)
        x = student.pre_norm(torch.cat((tokens, patches), 1))
        for block in student.blocks:
            x = block(x)
        return x[:, 0], x[:, 1:]

    def decode(self, features: Tensor, kept: Tensor, grid: tuple[int, int]) -> Tensor:
        """Features at their places, faint noise at the hidden ones, through the decoder: [the same, patches, dim]."""
        batch, _, dim = features.shape
        whole = 0.01 * torch.randn(batch, math.prod(grid), dim, device=features.device, dtype=features.dtype)
        whole = whole.scatter(1, kept[..., None].expand(-1, -1, dim), features)
        decoded: Tensor = self.decoder(whole.reshape(batch, *grid, dim))
        return decoded.flatten(1, 2)

    @torch.no_grad()
    def after_update(self, step: int) -> None:
        teacher = self.config.teacher
        decay = teacher.start + (teacher.end - teacher.start) * min(1.0, step / teacher.steps)
        own: list[Tensor] = list(self.teacher.parameters())
        torch._foreach_lerp_(own, list(self.student.parameters()), 1.0 - decay)


def squared_error(estimate: Tensor, target: Tensor) -> Tensor:
    """[..., dim] twice -> [...]: summed over dim, over its root (data2vec's scale)."""
    return (estimate.float() - target.float()).square().sum(-1) / math.sqrt(target.shape[-1])


def pretrain(
    config: Pretrain,
    folder: Path,
    *,
    resume: bool = False,
    tensorboard: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Pre-train; returns the folder of the encoder. Raises as `fit` does."""
    accelerator = make_accelerator()
    clips = training_clips(load_clips(config.data))
    origin = origin_of(config, ((clip, -1) for clip in clips), accelerator.num_processes)
    if accelerator.is_main_process:
        state.claim(folder, origin, resume, "encoder")
    learner = EatLearner(student_of(config), config)
    dataset, places = material_of(config, clips, learner.student.rate_hz, config.train.cache_gb, progress)
    batches = Batches(dataset.lengths[places], config.train.batch_size, seed=config.train.seed, drop_last=True)
    steps = steps_of(config.train, len(batches), accelerator.num_processes)

    def save(at: Path, step: int) -> None:
        if accelerator.is_main_process:
            about = {"steps": step, **msgspec.structs.asdict(origin)}
            with written_whole(at) as part:
                save_checkpoint(part, learner.student, training=about)

    train(
        learner,
        feed_of(dataset, batches, places, config.train.workers),
        Job(folder, config.train, steps, origin, tensorboard),
        accelerator,
        lambda step: save(folder / "snapshots" / f"step-{step:08d}", step),
    )
    save(folder / "encoder", steps)
    return folder / "encoder"


def student_of(config: Pretrain) -> Vit:
    """Raises UsageError for an encoder that cannot be pre-trained."""
    torch.manual_seed(config.train.seed)
    backbone: Backbone = load_backbone(config.checkpoint) if config.checkpoint else build(config.encoder, config.size)
    if not isinstance(backbone, Vit):
        raise UsageError(f"{config.checkpoint}: holds {backbone.name}; only EAT and bandsplit can be pre-trained")
    student = at_rate(backbone, config.rate_hz)
    assert isinstance(student, Vit)
    return student


def material_of(
    config: Pretrain, clips: list[Clip], rate_hz: int, limit_gb: float, progress: Progress | None = None
) -> tuple[ClipDataset, Places]:
    """Random crops of the clips; places [entries]: a long recording comes once per clip length in every epoch."""
    audio = AudioCache([clip.path for clip in clips], rate_hz, limit_gb=limit_gb, progress=progress)
    dataset = ClipDataset(clips, audio, None, config.clip_s, seed=config.train.seed)
    crops = np.ceil(audio.lengths / (config.clip_s * rate_hz)).astype(int)
    return dataset, np.repeat(np.arange(len(clips)), np.maximum(1, crops))
