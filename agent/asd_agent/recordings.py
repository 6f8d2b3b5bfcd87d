"""Recordings as the windows that live sound would have made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from asd_agent import config
from asd_agent.capture import read_file
from asd_agent.errors import SourceError
from asd_agent.types import Samples, Window
from asd_agent.window import Windower


def recorded_windows(path: Path, machine: config.Machine, rates: Iterable[int]) -> Iterator[Window]:
    """The windows of one file, cut by the machine's window_s and hop_s. Raises SourceError, naming the file."""
    windower: Windower | None = None
    try:
        for block in read_file(path):
            if windower is None:
                windower = Windower(block.rate_hz, machine.window_s, machine.hop_s, rates)
            yield from windower.push(block, machine.source.channel)
    except SourceError as exc:
        raise exc if str(path) in str(exc) else SourceError(f"{path}: {exc}") from exc


def whole_recording(path: Path, rate_hz: int, channel: int = 0) -> Samples:
    """One channel of a whole file at `rate_hz`, [samples]. Raises SourceError, naming the file."""
    blocks = list(read_file(path))
    if channel >= blocks[0].samples.shape[1]:
        raise SourceError(
            f"{path}: has {blocks[0].samples.shape[1]} channel(s), there is no channel {channel}"
        )
    samples = np.concatenate([block.samples[:, channel] for block in blocks])
    native = blocks[0].rate_hz
    if native < rate_hz:
        raise SourceError(
            f"{path}: recorded at {native} Hz, the bundle wants {rate_hz} Hz: record at that rate or above"
        )
    if native > rate_hz:
        import soxr

        samples = soxr.resample(samples, native, rate_hz, "HQ")
    return np.ascontiguousarray(samples, np.float32)
