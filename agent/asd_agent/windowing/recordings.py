"""Recordings as the windows that live sound would have made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from asd_agent import config
from asd_agent.capture import read_file
from asd_agent.errors import SourceError
from asd_agent.types import Samples, Window
from asd_agent.windowing.windower import Windower

BLOCK_S = 2.0  # nobody waits for the windows of a recording: fewer, longer blocks cost less


def recorded_windows(
    path: Path, machine: config.Machine, rates: Iterable[int], utc_s: float | None = None
) -> Iterator[Window]:
    """The windows of one file, cut by the machine's window_s and hop_s; `utc_s` is when it began (default: now).

    Raises SourceError, naming the file.
    """
    windower: Windower | None = None
    try:
        for block in read_file(path, utc_s, BLOCK_S):
            if windower is None:
                windower = Windower(block.rate_hz, machine.window_s, machine.hop_s, rates)
            yield from windower.push(block, *machine.channels)
    except SourceError as exc:
        raise exc if str(path) in str(exc) else SourceError(f"{path}: {exc}") from exc


def native_recording(path: Path, channel: int = 0) -> tuple[Samples, int]:
    """One channel of a whole file, [samples], and its rate in Hz. Raises SourceError, naming the file."""
    blocks = list(read_file(path))
    channels = blocks[0].samples.shape[1]
    if channel >= channels:
        raise SourceError(f"{path}: has {channels} channel(s), there is no channel {channel}")
    return np.concatenate([block.samples[:, channel] for block in blocks]), blocks[0].rate_hz


def whole_recording(path: Path, rate_hz: int, lowest_hz: int | None = None) -> Samples:
    """The first channel of a whole file at `rate_hz`, [samples]; recorded at `lowest_hz` or above (default: `rate_hz`).

    Raises SourceError, naming the file.
    """
    samples, native_hz = native_recording(path)
    if native_hz < (lowest_hz or rate_hz):
        raise SourceError(
            f"{path}: recorded at {native_hz} Hz, the bundle wants at least {lowest_hz or rate_hz} Hz: record faster"
        )
    if native_hz != rate_hz:
        import soxr

        samples = soxr.resample(samples, native_hz, rate_hz, "HQ")
    return np.ascontiguousarray(samples, np.float32)
