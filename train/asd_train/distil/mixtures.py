"""Batches of mixtures: what is in them is known, because it was put there.

A mixture follows from (seed, its number) alone, so that a resumed run goes on with the batches it would have had.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asd_train.distil import faults
from asd_train.distil.recipe import Mix
from asd_train.distil.stems import FAULT, MACHINE, NUISANCE, Stems

PARTS = 3  # machine, nuisance, fault
KNOTS = 12  # of a response between source and microphone, evenly over the octaves
NONE = -1
MODULATION = faults.KINDS.index("modulation")
DEEPEST = 0.7  # a modulation has no more than this RMS

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.intp]


class Mixture(NamedTuple):
    """Seconds made of parts; a part that is absent has the level 0 and the label NONE."""

    db: Tensor  # [batch, parts, bands, frames] of each part at RMS 1
    level: Tensor  # [batch, parts]: RMS over the machine's
    swell: Tensor  # [batch, frames]: power by which the machine is modulated, 1 without
    response_db: Tensor  # [batch, parts, knots]
    machine: Tensor  # [batch] int64
    family: Tensor  # [batch] int64
    fault: Tensor  # [batch] int64
    tokens: Tensor  # [batch, parts, dim] of the teacher; dim 0 without

    def to(self, device: torch.device) -> Self:
        return type(self)(*(value.to(device, non_blocking=True) for value in self))


class Mixer:
    """Draws mixtures from stems; `aside` from those that training does not hear."""

    def __init__(self, stems: Stems, mix: Mix, seed: int, aside: bool = False) -> None:
        self.stems, self.mix, self.key = stems, mix, (seed, 5 + aside)
        # Every machine, family and kind of fault comes equally often, however much sound there is of it.
        self.machines = _by_label(stems, stems.rows(MACHINE, aside))
        self.nuisances = _by_label(stems, stems.rows(NUISANCE, aside))
        self.faults = _by_label(stems, stems.rows(FAULT, aside))

    def feed(self, batch_size: int, done: int, rank: int, processes: int) -> Iterator[Mixture]:
        """Endless batches for one of several processes, from the one after `done` on."""
        number = done * processes + rank
        while True:
            yield self.batch([number * batch_size + i for i in range(batch_size)])
            number += processes

    def batch(self, numbers: list[int]) -> Mixture:
        """Single seconds, each of its own."""
        return _stacked([self._second(np.random.default_rng((*self.key, 0, number))) for number in numbers])

    def window(self, number: int, seconds: int, *, nuisance: bool, fault: bool) -> Mixture:
        """Seconds of one machine, always behind the same response: a fault is in all of them, nuisance in one, several
        or all."""
        rng = np.random.default_rng((*self.key, 1, number))
        levels_db, response_db = self._levels_db(rng), self._response_db(rng)
        machine = _run(_any(self.machines, rng), seconds, rng)
        site = np.random.default_rng((*self.key, 2, int(self.stems.label[machine[0]])))
        response_db[0] = self._response_db(site)[0]
        first, count = 0, 0
        if nuisance:
            count = int(rng.integers(1, seconds + 1))
            first = int(rng.integers(seconds - count + 1))
        heard = _run(_any(self.nuisances, rng), count, rng)
        kind = int(rng.integers(len(faults.KINDS))) if fault else NONE
        broken = _run(self.faults[kind], seconds, rng) if kind not in (NONE, MODULATION) else None
        key = int(rng.integers(2**31))  # the same modulation in every second
        return _stacked(
            [
                self._mix(
                    int(machine[i]),
                    int(heard[i - first]) if first <= i < first + count else None,
                    None if broken is None else int(broken[i]),
                    kind,
                    levels_db,
                    response_db,
                    np.random.default_rng(key),
                )
                for i in range(seconds)
            ]
        )

    def _second(self, rng: np.random.Generator) -> tuple[Any, ...]:
        machine = int(rng.choice(_any(self.machines, rng)))
        nuisance = int(rng.choice(_any(self.nuisances, rng))) if rng.random() < self.mix.nuisance else None
        kind = int(rng.integers(len(faults.KINDS))) if rng.random() < self.mix.fault else NONE
        fault = int(rng.choice(self.faults[kind])) if kind not in (NONE, MODULATION) else None
        return self._mix(machine, nuisance, fault, kind, self._levels_db(rng), self._response_db(rng), rng)

    def _levels_db(self, rng: np.random.Generator) -> tuple[float, float]:
        return rng.uniform(*self.mix.nuisance_db), rng.uniform(*self.mix.fault_db)

    def _response_db(self, rng: np.random.Generator) -> Array:
        """A walk over the octaves for every part, mean 0. [parts, knots]"""
        walk = np.cumsum(rng.normal(0, self.mix.response_db / 2, (PARTS, KNOTS)), axis=1)
        return np.asarray(walk - walk.mean(axis=1, keepdims=True), np.float32)

    def _mix(
        self,
        machine: int,
        nuisance: int | None,
        fault: int | None,
        kind: int,
        levels_db: tuple[float, float],
        response_db: Array,
        rng: np.random.Generator,
    ) -> tuple[Any, ...]:
        stems, (nuisance_level, fault_level) = self.stems, (10 ** (db / 20) for db in levels_db)
        db = np.zeros((PARTS, *stems.db.shape[1:]), np.float32)
        level = np.zeros(PARTS, np.float32)
        swell = np.ones(stems.db.shape[2], np.float32)
        tokens = np.zeros((PARTS, stems.tokens.shape[1]), np.float32)
        for part, (row, value) in enumerate(((machine, 1.0), (nuisance, nuisance_level), (fault, fault_level))):
            if row is not None:
                db[part], level[part], tokens[part] = stems.db[row], value, stems.tokens[row]
        if kind == MODULATION:
            level[2], db[2] = min(fault_level, DEEPEST), db[0]
            swell = faults.swell(float(level[2]), rng)
            response_db = np.concatenate([response_db[:2], response_db[:1]])
        family = np.int64(NONE if nuisance is None else stems.label[nuisance])
        return db, level, swell, response_db, stems.label[machine], family, np.int64(kind), tokens


def _stacked(rows: list[tuple[Any, ...]]) -> Mixture:
    return Mixture(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))


def _by_label(stems: Stems, rows: Rows) -> list[Rows]:
    return [rows[stems.label[rows] == label] for label in np.unique(stems.label[rows])]


def _any(groups: list[Rows], rng: np.random.Generator) -> Rows:
    return groups[int(rng.integers(len(groups)))]


def _run(rows: Rows, count: int, rng: np.random.Generator) -> Rows:
    """Rows of adjacent seconds (stems overlap by half), from any on."""
    return rows[(int(rng.integers(len(rows))) + 2 * np.arange(count)) % len(rows)]
