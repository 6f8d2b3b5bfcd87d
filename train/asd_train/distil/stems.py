"""Seconds of sound of one kind each, from which mixtures are made: machines, everyday sound, faults.

All follow from the recipe and its seed. A part of every kind is set aside by recording, machine or rendering: training
never hears it, calibration hears nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from asd_agent.capture.files import recordings
from asd_agent.types import Samples
from asd_train.data.audio import read_audio
from asd_train.distil import faults
from asd_train.distil.everyday import everyday
from asd_train.distil.recipe import FAMILIES, Distil, Recordings
from asd_train.distil.student import MelSeconds, decibel
from asd_train.distil.tokens import tokens
from asd_train.synth import Machine, draw_machines
from asd_train.synth.sound import clean

RATE_HZ = faults.RATE_HZ
SECOND, STEP = RATE_HZ, RATE_HZ // 2
ASIDE = 6  # every so many recordings, machines or renderings are for calibration
QUIET = 0.1  # a second below this share of its recording's loudest is a pause
RENDERING_S = 8.0
SPEEDS = (0.85, 1.0, 1.18)  # recordings are played at; each is a machine of its own
MACHINE, NUISANCE, FAULT = 0, 1, 2

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Stems:
    db: npt.NDArray[np.float16]  # [n, bands, frames] of the student's front end, of sound of RMS 1
    tokens: npt.NDArray[np.float32]  # [n, dim] of the teacher; dim 0 without
    role: npt.NDArray[np.int64]  # [n]: machine, nuisance or fault
    label: npt.NDArray[np.int64]  # [n]: number of the machine, the family or the kind of fault
    aside: npt.NDArray[np.bool_]  # [n]: for calibration
    names: list[str]  # of the machines

    def rows(self, role: int, aside: bool) -> npt.NDArray[np.intp]:
        """Of a role, for training or set aside; all where too little was there to set anything aside."""
        of_role = self.role == role
        chosen = np.flatnonzero(of_role & (self.aside == aside))
        return chosen if len(chosen) else np.flatnonzero(of_role)


@dataclass(frozen=True)
class _Source:
    """One recording, machine or rendering."""

    role: int
    label: int
    sound: Samples
    turn: int  # among its like


def stems_of(recipe: Distil, cache: Path | None = None, progress: Progress | None = None) -> Stems:
    """Reads and computes everything, or takes it from the `cache` file of the same recipe and recordings; writes one.

    Raises SourceError for a path without recordings, UsageError for a teacher that cannot be read.
    """
    key = _key(recipe)
    if cache is not None and cache.is_file():
        with np.load(cache) as arrays:
            if str(arrays["key"]) == key:
                return Stems(**{name: arrays[name] for name in _ARRAYS}, names=arrays["names"].tolist())
    waves, role, label, aside, names = collect(recipe, progress)
    stems = Stems(_bands(waves), tokens(waves, recipe.teacher, progress), role, label, aside, names)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, key=key, names=np.array(names), **{name: getattr(stems, name) for name in _ARRAYS})
    return stems


_ARRAYS = ("db", "tokens", "role", "label", "aside")
Waves = npt.NDArray[np.float16]


def collect(
    recipe: Distil, progress: Progress | None = None
) -> tuple[Waves, npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_], list[str]]:
    """Seconds [n, 16000] of RMS 1, their role, label and whether they are set aside, and the names of machines."""
    seed = recipe.train.seed
    names = [f"synthetic {i}" for i in range(recipe.synthetic.machines)]
    waves, columns = [], []
    sources = [*_machines(recipe, names), *_nuisance(recipe), *_faults(recipe)]
    for done, make in enumerate(sources, 1):
        for source in make():
            rng = np.random.default_rng((seed, 7, source.role, source.label, source.turn))
            sound = source.sound if source.role == MACHINE else in_room(source.sound, rng)
            seconds = cut(sound)
            waves += seconds
            columns += [(source.role, source.label, source.turn % ASIDE == ASIDE - 1)] * len(seconds)
        if progress is not None:
            progress(done, len(sources))
    role, label, aside = (np.array(column) for column in zip(*columns, strict=True))
    return np.stack(waves), role, label, aside.astype(bool), names


def _bands(waves: Waves) -> npt.NDArray[np.float16]:
    frontend = MelSeconds()
    rows = []
    for start in range(0, len(waves), 64):
        seconds = torch.from_numpy(waves[start : start + 64].astype(np.float32))
        rows.append(decibel(frontend.bands(frontend.spectrum(seconds).abs().square())).numpy().astype(np.float16))
    return np.concatenate(rows)


def _key(recipe: Distil) -> str:
    """Of all that stems depend on: the recipe's sounds and teacher, its seed, and the recordings' sizes."""
    digest = hashlib.sha256()
    digest.update(msgspec.json.encode((recipe.machines, recipe.nuisance, recipe.synthetic, recipe.teacher)))
    digest.update(str(recipe.train.seed).encode())
    for folder in (*recipe.machines, *recipe.nuisance):
        for path in _files(folder):
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def cut(sound: Samples) -> list[Waves]:
    """Seconds of RMS 1 every half second, without pauses."""
    seconds = [sound[i : i + SECOND] for i in range(0, len(sound) - SECOND + 1, STEP)]
    if not seconds:
        seconds = [np.resize(sound, SECOND)]
    levels = np.array([float(np.sqrt(np.mean(np.square(s - s.mean())))) for s in seconds])
    kept = np.flatnonzero(levels > max(QUIET * levels.max(), 1e-6))
    return [((seconds[i] - seconds[i].mean()) / levels[i]).astype(np.float16) for i in kept]


def in_room(sound: Samples, rng: np.random.Generator) -> Samples:
    """Direct sound and a decaying tail, up to 3 dB louder than it or hardly there. [n]"""
    n = round(rng.uniform(0.1, 0.6) * RATE_HZ)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    tail[: round(0.003 * RATE_HZ)] = 0
    tail *= 10 ** (rng.uniform(-20, 3) / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    size = 1 << (len(sound) + n).bit_length()
    spectrum = np.fft.rfft(sound, size) * np.fft.rfft(tail, size)
    return np.fft.irfft(spectrum, size)[: len(sound)].astype(np.float32)


_Make = Callable[[], Iterator[_Source]]


def _machines(recipe: Distil, names: list[str]) -> list[_Make]:
    """Synthetic ones in every condition, then recorded ones at three speeds, each a machine of its own."""
    seed, synthetic = recipe.train.seed, recipe.synthetic
    drawn = draw_machines(synthetic.machines, seed, synthetic.seconds / 4)
    makes: list[_Make] = [partial(_synthetic, machine, number, seed) for number, machine in enumerate(drawn)]
    for folder in recipe.machines:
        for turn, path in enumerate(_files(folder)):
            makes.append(partial(_at_speeds, path, folder.share, len(names), turn))
            names += [f"{path.name} x {speed}" for speed in SPEEDS]
    return makes


def _synthetic(machine: Machine, number: int, seed: int) -> Iterator[_Source]:
    for place, condition in enumerate((machine.source + machine.target)[:4]):
        yield _Source(
            MACHINE, number, clean(machine, condition, np.random.default_rng((seed, 1, number, place))), number
        )


def _at_speeds(path: Path, share: float, first: int, turn: int) -> Iterator[_Source]:
    for place, sound in enumerate(_speeds(_beginning(path, share))):
        yield _Source(MACHINE, first + place, sound, turn)


def _speeds(sound: Samples) -> Iterator[Samples]:
    """The sound played at every one of SPEEDS. [n]"""
    for speed in SPEEDS:
        at = np.arange(0, len(sound) - 1, speed)
        yield np.interp(at, np.arange(len(sound)), sound).astype(np.float32)


def _nuisance(recipe: Distil) -> list[_Make]:
    makes: list[_Make] = [
        partial(_recorded, path, folder.share, FAMILIES.index(folder.family), turn)
        for folder in recipe.nuisance
        for turn, path in enumerate(_files(folder))
    ]
    turns, seed = range(_renderings(recipe.synthetic.everyday_s)), recipe.train.seed
    makes += [partial(_computed, family, turn, seed) for family in range(len(FAMILIES)) for turn in turns]
    return makes


def _recorded(path: Path, share: float, family: int, turn: int) -> Iterator[_Source]:
    sound, length = _beginning(path, share), round(RENDERING_S * RATE_HZ)
    for part, at in enumerate(range(0, len(sound), length)):  # a long recording counts as several
        for other in _speeds(sound[at : at + length]):
            yield _Source(NUISANCE, family, other, turn + part)


def _computed(family: int, turn: int, seed: int) -> Iterator[_Source]:
    rng = np.random.default_rng((seed, 2, family, turn))
    yield _Source(NUISANCE, family, everyday(FAMILIES[family], round(RENDERING_S * RATE_HZ), rng), turn)


def _faults(recipe: Distil) -> list[_Make]:
    turns = range(_renderings(recipe.synthetic.fault_s))
    return [partial(_rendered, kind, turn, recipe.train.seed) for kind in range(len(faults.ADDED)) for turn in turns]


def _rendered(kind: int, turn: int, seed: int) -> Iterator[_Source]:
    rng = np.random.default_rng((seed, 3, kind, turn))
    yield _Source(FAULT, kind, faults.fault(faults.KINDS[kind], round(RENDERING_S * RATE_HZ), rng), turn)


def _beginning(path: Path, share: float) -> Samples:
    """A share of a recording, at least a second where it has one. [n]"""
    sound = read_audio(str(path), RATE_HZ)
    return sound[: max(round(share * len(sound)), min(len(sound), SECOND))]


def _renderings(seconds: float) -> int:
    """At least one for training and one aside."""
    return max(ASIDE, round(seconds / RENDERING_S))


def _files(folder: Recordings) -> Sequence[Path]:
    return sorted(recordings([folder.path]))[folder.skip :]
