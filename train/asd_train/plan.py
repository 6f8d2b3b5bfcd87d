"""`--dry-run`: what a run would do, before hours are spent on it."""

from __future__ import annotations

from collections import Counter

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from asd_train import config as cfg
from asd_train.data.dataset import collate
from asd_train.fit import Material, audio_of, batches_of, gather, learner_of, steps_of
from asd_train.loop import Learner, in_bf16, make_accelerator
from asd_train.model import build_system


def print_plan(config: cfg.System) -> None:
    """Data, classes, steps and an estimate of the memory, to standard output; raises what `fit` would."""
    console = Console(highlight=False, soft_wrap=True)
    accelerator = make_accelerator()
    material = gather(config)
    system = build_system(config)
    audio = audio_of(material, system.rate_hz)
    console.print(f"[bold]{config.name}[/]")
    console.print(_clips(material, float(audio.lengths.sum()) / system.rate_hz))
    console.print(_classes(material))
    console.print(f"embedding   {system.dim} values, {system.rate_hz} Hz, {_length(config)}")
    if config.train is None:
        console.print("training    none: the encoder is used as it is")
        return
    dataset, batches = batches_of(material, audio)
    processes, settings = accelerator.num_processes, config.train
    steps = steps_of(settings, len(batches), processes)
    size = settings.batch_size * settings.accumulate * processes
    epochs = steps * settings.accumulate * processes / len(batches)
    console.print(
        f"training    {steps} steps of {size} clips (batch {settings.batch_size}, accumulated "
        f"{settings.accumulate} times, on {accelerator.device.type} x {processes}), "
        f"{epochs:.1f} epochs of {len(batches)} batches"
    )
    learner = learner_of(material, system)
    trained = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    parameters = sum(p.numel() for p in learner.parameters())
    console.print(f"parameters  {parameters / 1e6:.2f} million, {trained / 1e6:.2f} million trained")
    longest = int(dataset.lengths.argmax())
    batch = collate([dataset[longest], dataset[longest]])
    state = (4 * parameters + (12 + 4 * (settings.ema is not None)) * trained) / 1e9
    activations = (
        saved_bytes(learner, tuple(batch), in_bf16(settings, accelerator)) / 2 * settings.batch_size / 1e9
    )
    console.print(
        f"memory      about {state + activations:.2g} GB: {state:.2g} GB for weights, "
        f"gradients, optimiser; {activations:.2g} GB for {settings.batch_size} clips of "
        f"{dataset.lengths.max() / system.rate_hz:.1f} s (an estimate)"
    )


def saved_bytes(learner: Learner, batch: tuple[Tensor, ...], bf16: bool) -> int:
    """What autograd keeps of one batch for the backward pass, without weights: measured on the CPU."""
    from asd_train.data.dataset import Batch

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
        loss = learner(Batch(*batch))["loss"]
    del loss
    return sum(kept.values())


def _clips(material: Material, seconds: float) -> Table:
    table = Table("machine", "source", "target", "supplemental", box=None, pad_edge=False)
    groups = Counter(
        (c.group, "supplemental" if c.split == "supplemental" else c.domain) for c in material.clips
    )
    noise = Counter(c.group for c in material.noise)
    for group in sorted({c.group for c in material.clips}):
        year, machine, section = group
        name = " ".join(x for x in (str(year or ""), machine, section if section != "00" else "") if x)
        extra = str(groups[group, "supplemental"]) + (f" + {noise[group]} noise" if noise[group] else "")
        table.add_row(name, str(groups[group, "source"]), str(groups[group, "target"]), extra)
    table.add_row("", "", "", f"{len(material.clips)} clips, {seconds / 3600:.2f} h")
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
