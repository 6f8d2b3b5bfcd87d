"""A level meter for the microphone: is there sound, is it too loud, is it silent?"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from asd_agent import config
from asd_agent.capture import open_source
from asd_agent.errors import EndOfSource, SourceError

SILENT_DBFS = -90.0
QUIET_DBFS = -60.0
CLIPPING = 0.99
LOWEST_DBFS = -120.0


@dataclass(frozen=True)
class Level:
    rms_dbfs: float
    peak_dbfs: float
    clipping: bool

    @property
    def advice(self) -> str:
        """What to do about it; empty when the level is fine."""
        if self.clipping:
            return "too loud: lower the gain, or move the microphone away"
        if self.rms_dbfs < SILENT_DBFS:
            return "silent: the wrong input, or muted"
        if self.rms_dbfs < QUIET_DBFS:
            return "quiet: raise the gain, or move the microphone closer"
        return ""


def levels(source: config.Source, seconds: float, patience_s: float = 5.0) -> Iterator[Level]:
    """About ten levels a second for so long. Raises SourceError when no sound comes within `patience_s`."""
    with open_source(source, [source.channel]) as opened:
        deadline, heard = time.monotonic() + patience_s, False
        until = math.inf
        while time.monotonic() < min(deadline, until):
            try:
                block = opened.read(0.5)
            except EndOfSource:
                return
            if block is None:
                continue
            if not heard:
                heard, until, deadline = True, time.monotonic() + seconds, math.inf
            yield of(block.samples[:, source.channel])
        if not heard:
            raise SourceError(f"no sound within {patience_s:g} s: {opened.status().detail}")


def of(samples: np.ndarray) -> Level:
    """samples [n] of one channel."""
    peak = float(np.abs(samples).max(initial=0.0))
    rms = math.sqrt(float(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    return Level(_dbfs(rms), _dbfs(peak), peak >= CLIPPING)


def _dbfs(value: float) -> float:
    return max(20 * math.log10(value), LOWEST_DBFS) if value > 0 else LOWEST_DBFS
