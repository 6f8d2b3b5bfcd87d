"""Windows for a calibration: from recordings, or from the machine's own source."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from asd_agent import config
from asd_agent.capture import open_source, recordings
from asd_agent.errors import EndOfSource, SourceError
from asd_agent.scoring.pipeline import Pipeline
from asd_agent.types import Description, Window
from asd_agent.windowing import signal_chain
from asd_agent.windowing.recordings import recorded_windows
from asd_agent.windowing.windower import Windower

Progress = Callable[[float, str], None]  # share done, words
PATIENCE_S = 30.0  # without a single frame from a live source


def describe_recordings(
    pipeline: Pipeline, machine: config.Machine, paths: Sequence[Path], progress: Progress = lambda *_: None
) -> list[Description]:
    """All windows of the recordings. Raises SourceError, naming the file: a calibration skips nothing silently."""
    files = recordings(paths)
    found: list[Description] = []
    sampler = signal_chain.Sampler(signal_chain.EVERY_WHILE_CALIBRATING_S)
    for i, path in enumerate(files):
        progress(i / len(files), f"{path.name}, {len(found)} windows")
        found += [
            sampler.add(window, pipeline.describe(window)) for window in recorded_windows(path, machine, pipeline.rates)
        ]
    progress(1.0, f"{len(found)} windows")
    return found


def describe_live(
    pipeline: Pipeline, machine: config.Machine, duration_s: float, progress: Progress = lambda *_: None,
    keep: Callable[[Window, Description], None] = lambda *_: None,
) -> list[Description]:  # fmt: skip
    """Windows of the machine's own source until `duration_s` of sound has come, or a finite source ends; `keep` gets
    each of them.

    Raises SourceError when the source delivers nothing.
    """
    found: list[Description] = []
    sound_s, last_frame = 0.0, time.monotonic()
    windower: Windower | None = None
    sampler = signal_chain.Sampler(signal_chain.EVERY_WHILE_CALIBRATING_S)
    with open_source(machine.source, machine.channels) as source:
        while sound_s < duration_s:
            try:
                block = source.read(0.5)
            except EndOfSource:
                break
            if block is None:
                if time.monotonic() - last_frame > PATIENCE_S:
                    raise SourceError(f"{machine.id}: no sound for {PATIENCE_S:g} s: {source.status().detail}")
                continue
            last_frame = time.monotonic()
            windower = windower or Windower(block.rate_hz, machine.window_s, machine.hop_s, pipeline.rates)
            for window in windower.push(block, *machine.channels):
                found.append(sampler.add(window, pipeline.describe(window)))
                keep(window, found[-1])
            sound_s += len(block.samples) / block.rate_hz
            progress(min(sound_s / duration_s, 1.0), f"{len(found)} windows")
    return found
