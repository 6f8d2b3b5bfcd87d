"""`--dry-run`: what a run would do, before hours are spent on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from asd_agent.errors import UsageError
from asd_train import config as cfg
from asd_train.data import Clip, load_clips, training_clips
from asd_train.data.dataset import Batch, Batches, ClipDataset, collate
from asd_train.distil.faults import KINDS
from asd_train.distil.recipe import FAMILIES, Distil
from asd_train.distil.run import per_epoch
from asd_train.distil.stems import FAULT, MACHINE, NUISANCE, stems_of
from asd_train.distil.student import Student
from asd_train.feed import steps_of
from asd_train.fit import Material, audio_of, batches_of, gather, learner_of
from asd_train.loop import Learner, in_bf16, make_accelerator
from asd_train.model import build_system
from asd_train.pretrain import EatLearner, Pretrain, material_of, student_of


def print_plan(config: cfg.System) -> None:
    """What `fit` would do, to standard output; raises what it would raise."""
    console = Console(highlight=False, soft_wrap=True)
    material = gather(config)
    absent = _absent([b.checkpoint for b in config.model.branches if isinstance(b, cfg.EncoderBranch)])
    with _shapes(absent):
        system = build_system(_counted(config) if absent else config)
    audio = audio_of(material, system.rate_hz)
    console.print(f"[bold]{config.name}[/]")
    _say_absent(console, absent)
    console.print(_clips(material.clips, material.noise, float(audio.lengths.sum()) / system.rate_hz))
    console.print(_classes(material))
    console.print(f"embedding   {system.dim} values, {system.rate_hz} Hz, {_length(config)}")
    if config.train is None:
        console.print("training    none: the encoder is used as it is")
        return
    dataset, batches = batches_of(material, audio)
    _training(console, learner_of(material, system), dataset, batches, config.train)


def print_pretrain_plan(config: Pretrain) -> None:
    """What `pretrain` would do, to standard output."""
    console = Console(highlight=False, soft_wrap=True)
    clips = training_clips(load_clips(config.data))
    absent = _absent([config.checkpoint])
    if absent:
        encoder, size = cfg.family(absent[0]), cfg.size_of(absent[0])
        if encoder not in ("eat", "bandsplit"):
            raise UsageError(f"{absent[0]}: no such checkpoint, nor the name of an EAT or band-split one")
        config = msgspec.structs.replace(config, checkpoint=None, encoder=encoder, size=size)
    with _shapes(absent):
        learner = EatLearner(student_of(config), config)
    dataset, places = material_of(config, clips, learner.student.rate_hz, limit_gb=0.0)
    console.print(f"[bold]{config.name}[/]")
    _say_absent(console, absent)
    console.print(_clips(clips, [], float(dataset.audio.lengths.sum()) / dataset.audio.rate_hz))
    console.print(f"masking     {config.masking.clones} clones of each clip, {config.masking.hidden:.0%} hidden")
    batches = Batches(dataset.lengths[places], config.train.batch_size, drop_last=True)
    _training(console, learner, dataset, batches, config.train)


def print_distil_plan(recipe: Distil) -> None:
    """What `distil` would do, to standard output; everything is collected, nothing is trained."""
    console = Console(highlight=False, soft_wrap=True)
    stems = stems_of(msgspec.structs.replace(recipe, teacher=None))
    student = Student(recipe.width)
    console.print(f"[bold]{recipe.name}[/]")
    table = Table("sound", "seconds to train with", "set aside", box=None, pad_edge=False)
    machine, fault = ["machines"] * len(stems.names), ["faults"] * len(KINDS)
    names: dict[int, list[str]] = {MACHINE: machine, NUISANCE: list(FAMILIES), FAULT: fault}
    rows = zip(stems.role, stems.label, stems.aside, strict=True)
    counts = Counter((names[int(role)][int(label)], bool(aside)) for role, label, aside in rows)
    for name in ("machines", *FAMILIES, "faults"):
        table.add_row(name, *(f"{counts[name, aside] / 2:.0f}" for aside in (False, True)))  # they overlap by half
    console.print(table)
    settings, parameters = recipe.train, sum(p.numel() for p in student.parameters())
    steps = steps_of(settings, per_epoch(stems, settings), 1)
    console.print(f"training    {steps} steps of {settings.batch_size} mixtures of 1 s")
    console.print(f"student     {parameters / 1e6:.2f} million parameters")


def _training(
    console: Console, learner: Learner[Batch], dataset: ClipDataset, batches: Batches, settings: cfg.Train
) -> None:
    """Steps, parameters and an estimate of the memory."""
    accelerator = make_accelerator()
    processes = accelerator.num_processes
    steps = steps_of(settings, len(batches), processes)
    size = settings.batch_size * settings.accumulate * processes
    epochs = steps * settings.accumulate * processes / len(batches)
    console.print(
        f"training    {steps} steps of {size} clips (batch {settings.batch_size}, accumulated "
        f"{settings.accumulate} times, on {accelerator.device.type} x {processes}), "
        f"{epochs:.1f} epochs of {len(batches)} batches"
    )
    trained = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    parameters = sum(p.numel() for p in learner.parameters())
    console.print(f"parameters  {parameters / 1e6:.2f} million, {trained / 1e6:.2f} million trained")
    state = (4 * parameters + (12 + 4 * (settings.ema is not None)) * trained) / 1e9
    if next(learner.parameters()).device.type == "meta":
        console.print(f"memory      {state:.2g} GB for weights, gradients, optimiser, and the activations")
        return
    longest = int(dataset.lengths.argmax())
    batch = collate([dataset[longest], dataset[longest]])
    activations = saved_bytes(learner, batch, in_bf16(settings, accelerator)) / 2 * settings.batch_size / 1e9
    console.print(
        f"memory      about {state + activations:.2g} GB: {state:.2g} GB for weights, "
        f"gradients, optimiser; {activations:.2g} GB for {settings.batch_size} clips of "
        f"{dataset.lengths.max() / dataset.audio.rate_hz:.1f} s (an estimate)"
    )


def _absent(checkpoints: Sequence[str | None]) -> list[str]:
    """Those that are not here: a plan counts with the sizes that their names promise."""
    return [path for path in checkpoints if path and not Path(path).expanduser().exists()]


def _say_absent(console: Console, absent: Sequence[str]) -> None:
    for path in absent:
        console.print(f"checkpoint  {path} is not here: counted as {cfg.family(path)} {cfg.size_of(path)}")


def _shapes(absent: Sequence[str]) -> AbstractContextManager[object]:
    """Weights without memory where a checkpoint is not here."""
    return torch.device("meta") if absent else nullcontext()


def _counted(config: cfg.System) -> cfg.System:
    """With random weights in place of all checkpoints."""
    replace = msgspec.structs.replace
    branches = [
        replace(b, checkpoint=None, encoder=cfg.family(b.checkpoint), size=cfg.size_of(b.checkpoint))
        if isinstance(b, cfg.EncoderBranch) and b.checkpoint
        else b
        for b in config.model.branches
    ]
    return replace(config, model=replace(config.model, branches=branches))


def saved_bytes(learner: Learner[Batch], batch: Batch, bf16: bool) -> int:
    """What autograd keeps of one batch for the backward pass, without weights: measured on the CPU."""
    own = {p.untyped_storage().data_ptr() for p in (*learner.parameters(), *learner.buffers())}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    learner.train()
    with (
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        loss = learner(batch)["loss"]
    del loss
    return sum(kept.values())


def _clips(clips: Sequence[Clip], noise: Sequence[Clip], seconds: float) -> Table:
    table = Table("machine", "source", "target", "supplemental", box=None, pad_edge=False)
    groups = Counter((c.group, "supplemental" if c.split == "supplemental" else c.domain) for c in clips)
    noises = Counter(c.group for c in noise)
    for group in sorted({c.group for c in clips}):
        year, machine, section = group
        name = " ".join(x for x in (str(year or ""), machine, section if section != "00" else "") if x)
        extra = str(groups[group, "supplemental"]) + (f" + {noises[group]} noise" if noises[group] else "")
        table.add_row(name, str(groups[group, "source"]), str(groups[group, "target"]), extra)
    table.add_row("", "", "", f"{len(clips)} clips, {seconds / 3600:.2f} h")
    return table


def _classes(material: Material) -> str:
    if material.classes is None:
        return "classes     none are used"
    counts = material.classes.counts(material.clips)
    few = sorted(counts, key=lambda name: counts[name])[:3]
    rarest = ", ".join(f"{name} ({counts[name]})" for name in few)
    return f"classes     {len(counts)}; rarest: {rarest}"


def _length(config: cfg.System) -> str:
    if config.clip_s is None:
        return "clips of any length"
    return f"clips of {config.clip_s:g} s ({'repeated' if config.fill == 'tile' else 'padded'} where shorter)"
