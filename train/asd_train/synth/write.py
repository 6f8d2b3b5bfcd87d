"""The drawn machines as files, in the layout of the challenge's releases.

    OUT/dev_data/raw/<machine>/{train,test,supplemental}/*.wav, attributes_00.csv     test clips with labels
    OUT/eval_data/raw/<machine>/...                                      test clips section_00_NNNN.wav, no
    labels OUT/eval_data_list.csv                                               the truth about them, in the
    baseline's format

Every clip follows from (seed, machine, kind, number) alone: neither the number of workers nor the counts of
other splits change it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from asd_agent.errors import UsageError
from asd_train.synth import sound
from asd_train.synth.plan import Condition, Counts, Machine

Progress = Callable[[int, int], None]
_KINDS = ("train", "normal", "anomaly", "supplemental")  # their place enters the seed of a clip


@dataclass(frozen=True, slots=True)
class Order:
    """One clip to make."""

    machine: Machine
    condition: Condition
    path: str
    key: tuple[int, ...]  # seed
    fault: str | None = None
    kind: str = "clip"


def write_challenge(
    out: Path,
    machines: Sequence[Machine],
    counts: Counts,
    evaluation: int = 0,
    workers: int = 0,
    progress: Progress | None = None,
) -> int:
    """Write all clips and tables, the last `evaluation` machines without labels; returns the number of clips.

    `workers` 0: one a core. Raises UsageError when `out` holds anything already or cannot be written.
    """
    _prepare(out)
    orders: list[Order] = []
    truth: list[str] = []
    for place, machine in enumerate(machines):
        hidden = place >= len(machines) - evaluation
        folder = out / ("eval_data" if hidden else "dev_data") / "raw" / machine.name
        made = list(_orders(machine, folder, counts))
        _write_table(folder, machine, [o for o in made if not (hidden and "/test/" in o.path)])
        if hidden:
            made, lines = _without_labels(machine, made)
            truth += lines
        orders += made
    if truth:
        (out / "eval_data_list.csv").write_text("".join(f"{line}\n" for line in truth), encoding="utf-8")
    for done, _ in enumerate(_run(orders, workers or os.cpu_count() or 1), 1):
        if progress is not None:
            progress(done, len(orders))
    return len(orders)


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise UsageError(f"{out}: is not empty; give a new folder")
    except OSError as exc:
        raise UsageError(f"{out}: cannot be written ({exc.strerror or exc})") from exc


def _orders(machine: Machine, folder: Path, counts: Counts) -> Iterator[Order]:
    for number in range(counts.source):
        yield _order(machine, folder, "train", "source", "normal", number)
    for number in range(counts.source, counts.source + counts.target):
        yield _order(machine, folder, "train", "target", "normal", number)
    for domain in ("source", "target"):
        for label in ("normal", "anomaly"):
            for number in range(counts.test // 4):
                yield _order(machine, folder, "test", domain, label, number)
    for number in range(counts.supplemental):
        condition = machine.source[number % len(machine.source)]
        word = "machine" if machine.supplemental == "clean" else "noise"
        name = f"section_00_{word}_supplemental_normal_{number:04d}_{_suffix(machine, condition)}.wav"
        key = (machine.seed, _KINDS.index("supplemental"), number)
        yield Order(machine, condition, str(folder / "supplemental" / name), key, kind=machine.supplemental)


def _order(machine: Machine, folder: Path, split: str, domain: str, label: str, number: int) -> Order:
    conditions = machine.source if domain == "source" else machine.target
    condition = conditions[number % len(conditions)]
    fault = machine.family.faults[number % len(machine.family.faults)] if label == "anomaly" else None
    name = f"section_00_{domain}_{split}_{label}_{number:04d}_{_suffix(machine, condition)}.wav"
    kind = _KINDS.index("train" if split == "train" else label)
    key = (machine.seed, kind, int(domain == "target"), number)
    return Order(machine, condition, str(folder / split / name), key, fault)


def _suffix(machine: Machine, condition: Condition) -> str:
    return "_".join(f"{k}_{v}" for k, v in machine.attributes(condition)) or "noAttribute"


def _write_table(folder: Path, machine: Machine, orders: Iterable[Order]) -> None:
    """attributes_00.csv, with names that carry the folders in front, as in the releases."""
    for split in ("train", "test", "supplemental"):
        (folder / split).mkdir(parents=True)
    width = len(machine.attributes(machine.source[0]))
    lines = [["file_name", *(f"d{i + 1}{part}" for i in range(width) for part in "pv")]]
    for order in orders:
        if order.kind == "clip":
            name = "/".join(Path(order.path).parts[-3:])
            lines.append([name, *(cell for pair in machine.attributes(order.condition) for cell in pair)])
    (folder / "attributes_00.csv").write_text("".join(",".join(line) + "\n" for line in lines), encoding="utf-8")


def _without_labels(machine: Machine, orders: Sequence[Order]) -> tuple[list[Order], list[str]]:
    """The test clips in a drawn order under names that say nothing, and the lines of the truth about them."""
    test = [o for o in orders if "/test/" in o.path]
    rest = [o for o in orders if "/test/" not in o.path]
    lines = [machine.name]
    for number, place in enumerate(np.random.default_rng((machine.seed, len(_KINDS))).permutation(len(test))):
        order = test[place]
        path = Path(order.path).with_name(f"section_00_{number:04d}.wav")
        lines.append(f"{path.name},{Path(order.path).name}")
        rest.append(Order(machine, order.condition, str(path), order.key, order.fault, order.kind))
    return rest, lines


def _run(orders: Sequence[Order], workers: int) -> Iterator[None]:
    if workers == 1:
        yield from map(_make, orders)
        return
    spawned = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(workers, mp_context=spawned) as pool:
        yield from pool.map(_make, orders, chunksize=16)


def _make(order: Order) -> None:
    rng = np.random.default_rng(order.key)
    if order.kind == "noise":
        samples = sound.noise(order.machine, order.condition, rng)
    elif order.kind == "clean":
        samples = sound.clean(order.machine, order.condition, rng)
    else:
        samples = sound.clip(order.machine, order.condition, order.fault, rng)
    try:
        soundfile.write(order.path, samples, sound.RATE_HZ, subtype="PCM_16")
    except (soundfile.SoundFileError, OSError) as exc:
        raise UsageError(f"{order.path}: cannot be written ({exc})") from exc
