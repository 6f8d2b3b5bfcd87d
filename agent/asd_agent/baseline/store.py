"""The baseline: what `calibrate` learnt about one machine, as a versioned, checksummed, immutable folder.

    <state_dir>/machines/<machine>/
        pointers.json                    {"active": ..., "previous": ..., "candidate": ...}
        baselines/<version>/
            baseline.json                what it was learnt from and with; thresholds; the report
            arrays.npz                   banks and calibration scores
            SHA256SUMS                   check by hand with `sha256sum -c SHA256SUMS`

A folder is written under a temporary name, fsynced and renamed, so that a power cut leaves either none or all of
it. candidate -> active -> previous: promote and rollback only replace pointers.json.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent import config
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.fusion import Fusion
from asd_agent.decide.logscore import LogScore
from asd_agent.decide.support import Support
from asd_agent.errors import BaselineError, StoreError

FORMAT = 2  # 1: scores fused by Fisher's rule
Arrays = dict[str, npt.NDArray[Any]]


class ChainFloor(msgspec.Struct, frozen=True, kw_only=True):
    """Third-octave levels of the quietest moments in one operating state (`Fingerprint.floor_db`)."""

    median_db: list[float]
    low_db: list[float]  # of the quietest window


class InputChain(msgspec.Struct, frozen=True, kw_only=True):
    """The fingerprint of the measuring chain at calibration, and the levels that were normal then."""

    source: str  # the device key
    level_dbfs: float  # median over the windows
    level_low_dbfs: float  # 2nd percentile
    level_high_dbfs: float  # 98th percentile
    levels: dict[str, tuple[float, float]] = {}  # operating state -> 2nd and 98th percentile of its windows
    floors: dict[str, ChainFloor] = {}  # operating state -> what the chain lets through there
    rate_hz: int = 0  # native; 0 = not known
    edge_hz: float = 0.0  # above it there was next to nothing
    dc: float = 0.0  # full scale = 1
    mixer: dict[str, str] = {}  # control -> setting, where the system could say


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on the calibration, in numbers and in plain words."""

    windows: int
    seconds: float
    excluded: dict[str, int]  # reason -> windows
    excluded_parts: list[str]  # "rec3.flac 12.0-22.0 s: clipping"
    outliers: list[str] = []  # used, but beyond the limit when held out: "rec3.flac 30.0-40.0 s: score 5.1, ..."
    outlier_places: list[str] = []  # of all of them, in the same order, for `exclude`
    outlier_clips: dict[str, str] = {}  # place -> file to listen to, below the state directory, of live sound
    support: Support  # the false-alarm rate that this calibration can promise
    budget_per_month: float
    facts: list[str]  # sentences
    concerns: list[str]  # what is not good about it, and what to do

    @property
    def good(self) -> bool:
        return not self.concerns


class DetectorCalibration(msgspec.Struct, frozen=True, kw_only=True):
    kind: str  # of its bank, or "mechanism"
    log_score: LogScore | None = None  # None for the mechanism analysis, which calibrates itself


class StateCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """One operating state: its detectors, and what their scores do there."""

    name: str
    windows: int
    level_dbfs: float  # median
    detectors: dict[str, DetectorCalibration]
    fused: list[str]  # the detectors that decide
    fusion: Fusion
    embedding_fusion: Fusion | None = None  # of the embeddings alone, where other detectors decide too
    transient: LogScore | None = None  # of the excess of the most sudden moment
    events_per_hour: float = 0.0  # sudden moments beyond the limit of the event lane, in calibration
    extends: str = ""  # the state whose measure of distance it borrows, having too few windows of its own


class Foreign(msgspec.Struct, frozen=True, kw_only=True):
    """ln of the summed probability of a family of foreign sounds on normal windows."""

    median: float
    scale: float


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    format: int = FORMAT
    version: str
    machine: str
    created_utc_s: float
    window_s: float
    hop_s: float
    bundles: dict[str, str]  # name -> sha256 of its bundle.json
    states: list[StateCalibration]  # by rising level, extensions last
    chain: InputChain
    report: Report
    foreign: dict[str, Foreign] = {}  # by family of sounds
    told: bool = False  # the states were told from outside, not found in the sound

    @property
    def detectors(self) -> list[str]:
        """Names over all states."""
        return list(dict.fromkeys(name for state in self.states for name in state.detectors))

    def thresholds(self, machine: config.Machine) -> Thresholds:
        """What the alarm settings of the machine make of what was learnt."""
        spreads = [state.fusion.spread for state in self.states]
        return Thresholds.strictest(machine.alarm, spreads, machine.window_s, machine.hop_s)


class Pointers(msgspec.Struct, frozen=True, kw_only=True):
    active: str | None = None
    previous: str | None = None
    candidate: str | None = None


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    manifest: Manifest
    arrays: Arrays  # "<state>/<detector>/<array>" -> values

    def part(self, name: str) -> Arrays:
        """The arrays under a prefix, "<state>/<detector>", without it."""
        return {k[len(name) + 1 :]: v for k, v in self.arrays.items() if k.startswith(name + "/")}


class BaselineStore:
    """The baselines of one machine under the state directory."""

    def __init__(self, state_dir: Path, machine: str) -> None:
        self.folder = state_dir / "machines" / machine
        self.machine = machine

    def versions(self) -> list[str]:
        """Newest last."""
        return sorted(p.name for p in (self.folder / "baselines").glob("[0-9]*") if p.is_dir())

    def pointers(self) -> Pointers:
        path = self.folder / "pointers.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Pointers)
        except FileNotFoundError:
            return Pointers()
        except (OSError, msgspec.DecodeError) as exc:
            raise BaselineError(
                f"{path}: cannot be read ({exc}); remove it and promote one of: {', '.join(self.versions())}"
            ) from exc

    def new_version(self) -> str:
        """A name that sorts by time and is not taken."""
        name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        taken = set(self.versions())
        return next(v for v in (name, *(f"{name}-{i}" for i in range(2, 1000))) if v not in taken)

    def prepare(self) -> None:
        """Make the folder: whether it can be written shall be known before minutes of listening. Raises StoreError."""
        try:
            (self.folder / "baselines").mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as exc:
            raise StoreError(f"{self.folder}: baselines cannot be written here ({exc.strerror or exc})") from exc

    def write(self, baseline: Baseline) -> Path:
        """Write a new version atomically and make it the candidate. Raises StoreError."""
        final = self.folder / "baselines" / baseline.manifest.version
        temporary = final.with_name("." + final.name)
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            payload = io.BytesIO()
            np.savez(payload, **baseline.arrays)  # type: ignore[arg-type]
            files = {
                "baseline.json": msgspec.json.format(msgspec.json.encode(baseline.manifest), indent=1),
                "arrays.npz": payload.getvalue(),
            }
            sums = "".join(f"{hashlib.sha256(v).hexdigest()}  {k}\n" for k, v in files.items())
            for name, content in (*files.items(), ("SHA256SUMS", sums.encode())):
                _write_synced(temporary / name, content)
            _sync_folder(temporary)
            temporary.rename(final)
            _sync_folder(final.parent)
            self._point(msgspec.structs.replace(self.pointers(), candidate=final.name))
        except OSError as exc:
            shutil.rmtree(temporary, ignore_errors=True)
            raise StoreError(f"{final}: the baseline cannot be written ({exc.strerror or exc})") from exc
        return final

    def load(self, version: str) -> Baseline:
        """Read a version and check its checksums. Raises BaselineError."""
        folder = self.folder / "baselines" / version
        if version not in self.versions():  # nor any other path
            known = ", ".join(self.versions()) or "none; calibrate first"
            raise BaselineError(f"{self.machine}: no baseline {version!r} (there are: {known})")
        try:
            files = {name: (folder / name).read_bytes() for name in ("baseline.json", "arrays.npz")}
            lines = (folder / "SHA256SUMS").read_text().splitlines()
            sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines if line)}
        except (OSError, ValueError) as exc:
            raise BaselineError(f"{folder}: the baseline is incomplete ({exc}); {REMEDY}") from exc
        for name, content in files.items():
            if sums.get(name) != hashlib.sha256(content).hexdigest():
                raise BaselineError(f"{folder / name}: the checksum does not match SHA256SUMS; {REMEDY}")
        try:
            manifest = msgspec.json.decode(files["baseline.json"], type=Manifest)
            with np.load(io.BytesIO(files["arrays.npz"]), allow_pickle=False) as stored:
                arrays = {k: stored[k] for k in stored.files}
        except (msgspec.DecodeError, ValueError, OSError) as exc:
            raise BaselineError(f"{folder}: not a baseline that this version reads ({exc}); {REMEDY}") from exc
        if manifest.format != FORMAT:
            raise BaselineError(f"{folder}: baseline format {manifest.format}, this version reads {FORMAT}; {REMEDY}")
        return Baseline(manifest=manifest, arrays=arrays)

    def checksum(self, version: str) -> str:
        """sha256 of its SHA256SUMS, which hold those of its files; empty when there is no such baseline."""
        try:
            return hashlib.sha256((self.folder / "baselines" / version / "SHA256SUMS").read_bytes()).hexdigest()
        except OSError:
            return ""

    def active(self) -> Baseline | None:
        version = self.pointers().active
        return None if version is None else self.load(version)

    def promote(self, version: str | None = None) -> Pointers:
        """candidate (or `version`) -> active -> previous. The version is verified first. Raises BaselineError."""
        pointers = self.pointers()
        version = version or pointers.candidate
        if version is None:
            raise BaselineError(f"{self.machine}: there is no candidate baseline; run calibrate, or name a version")
        self.load(version)
        if version == pointers.active:
            return pointers
        candidate = None if version == pointers.candidate else pointers.candidate
        return self._point(Pointers(active=version, previous=pointers.active, candidate=candidate))

    def rollback(self) -> Pointers:
        """previous -> active; what was active becomes the candidate. Raises BaselineError."""
        pointers = self.pointers()
        if pointers.previous is None:
            raise BaselineError(f"{self.machine}: there is no previous baseline to go back to")
        self.load(pointers.previous)
        return self._point(Pointers(active=pointers.previous, previous=None, candidate=pointers.active))

    def _point(self, pointers: Pointers) -> Pointers:
        path = self.folder / "pointers.json"
        temporary = path.with_suffix(".tmp")
        try:
            _write_synced(temporary, msgspec.json.encode(pointers))
            temporary.replace(path)
            _sync_folder(path.parent)
        except OSError as exc:
            raise StoreError(f"{path}: cannot be written ({exc.strerror or exc})") from exc
        return pointers


REMEDY = "roll back (`asd-agent baseline rollback`), or calibrate again"


def prefixed(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    return {f"{name}/{key}": value for key, value in arrays.items()}


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
