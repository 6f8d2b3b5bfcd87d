"""The baseline: what `calibrate` learnt about one machine, as a versioned, checksummed, immutable folder."""

from asd_agent.baseline.manifest import (
    Arrays,
    Baseline,
    DetectorCalibration,
    LeftOut,
    Manifest,
    Nuisance,
    Outlier,
    Pointers,
    Report,
    StateCalibration,
    prefixed,
)
from asd_agent.baseline.store import BaselineStore

__all__ = [
    "Arrays",
    "Baseline",
    "BaselineStore",
    "DetectorCalibration",
    "LeftOut",
    "Manifest",
    "Nuisance",
    "Outlier",
    "Pointers",
    "Report",
    "StateCalibration",
    "prefixed",
]
