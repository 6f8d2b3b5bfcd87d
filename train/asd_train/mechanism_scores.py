"""Scores by the agent's mechanism analysis alone (report A's "-MA"): no encoder, no training.

`asd-train ensemble --replace MACHINE=FOLDER` puts them in the place of an encoder's for the machines they suit.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from asd_agent.config.kinematics import Mechanism
from asd_agent.errors import CalibrationError, UsageError
from asd_agent.mechanism import Analyser, MechanismBaseline
from asd_train.data import Clip, DataSource
from asd_train.data.audio import read_audio, read_header
from asd_train.evaluate import Section, is_normal, sections_of

Progress = Callable[[str, int, int], None]  # (machine, clips done, clips in all)


class MechanismSystem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A configuration file of `asd-train evaluate`."""

    name: Annotated[str, Meta(min_length=1)]
    data: list[DataSource]
    mechanism: dict[str, Mechanism]  # kinematics of machines by name; {} and missing ones: nothing is known
    rms: bool = True  # the level counts as an indicator too; for an agent it does not, since gains change


def evaluate_mechanism(
    clips: Sequence[Clip],
    known: Mapping[str, Mechanism],
    workers: int = 0,
    progress: Progress | None = None,
    rms: bool = True,
) -> list[Section]:
    """Standard scores of test clips against the baseline of the normal ones; a clip that cannot be judged (silent,
    clipped, ...) gets 0, the score of a usual one. Raises UsageError, SourceError.
    """
    strangers = sorted(set(known) - {clip.machine for clip in clips})
    if strangers:
        raise UsageError(f"mechanism.{strangers[0]}: no such machine in the data")
    found = []
    for (year, machine, section), rows in sections_of(clips).items():
        normal = [clips[r] for r in rows if is_normal(clips[r])]
        test = sorted((clips[r] for r in rows if clips[r].split == "test"), key=lambda clip: clip.file)
        indicators = []
        work = partial(_indicators, known.get(machine, Mechanism()), rms)
        for values in _map(work, [clip.path for clip in (*normal, *test)], workers):
            indicators.append(values)
            if progress is not None:
                progress(machine, len(indicators), len(normal) + len(test))
        try:
            baseline = MechanismBaseline.fit(indicators[: len(normal)])
        except CalibrationError as exc:
            raise UsageError(f"{machine} {section}: {exc}") from exc
        verdicts = [baseline.judge(values) for values in indicators[len(normal) :]]
        scores = np.array([v.z if v.z is not None else 0.0 for v in verdicts])
        held_out = baseline.held_out_z()
        usable = np.flatnonzero(np.isfinite(held_out))
        normals = tuple(normal[r] for r in usable)
        found.append(Section(year, machine, section, tuple(test), scores, normals, held_out[usable]))
    return found


def _indicators(mechanism: Mechanism, rms: bool, path: str) -> dict[str, float]:
    rate_hz = read_header(path).rate_hz  # the native one: the analysis wants the whole band
    values = dict(Analyser(mechanism, rate_hz).indicators(read_audio(path, rate_hz)).values)
    if rms and "level.rms_db" in values:  # a family of its own: those called "level" are kept out of the score
        values["energy.rms_db"] = values["level.rms_db"]
    return values


def _map(work: Callable[[str], dict[str, float]], paths: Sequence[str], workers: int) -> Iterator[dict[str, float]]:
    if workers < 2:
        yield from map(work, paths)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, paths, chunksize=8)
