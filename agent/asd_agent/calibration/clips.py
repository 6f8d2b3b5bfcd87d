"""Sound of a live calibration that is kept: some normal windows for comparison, and its outliers to listen to.

Which windows are outliers is known at the end; which are unlike all before them is known at once. The most unlike few
are kept, and those of them that turn out to be outliers stay with the baseline:

    <state_dir>/machines/<machine>/normals/<version>/<utc ms>.flac
    <state_dir>/machines/<machine>/outliers/<version>/<utc ms>.flac
"""

from __future__ import annotations

import shutil
from collections import deque
from pathlib import Path

import msgspec
import numpy as np
import structlog

from asd_agent.baseline import Baseline
from asd_agent.evidence.clip import bits_of, encode_sound
from asd_agent.evidence.nearest import kept_name
from asd_agent.types import Description, Floats, Window, WindowRef

OUTLIERS_KEPT = 12  # windows
REMEMBERED = 300  # windows that a new one is compared with
NORMALS_KEPT = 24  # windows of a live calibration at most
NORMALS_BYTES = 20_000_000
KEPT_CALIBRATIONS = 3  # the newest
log = structlog.get_logger()


class NormalClips:
    """Keeps some windows of a live calibration. Never raises: without room there is nothing to compare with."""

    def __init__(self, machine_folder: Path) -> None:
        """`machine_folder`: <state_dir>/machines/<machine>."""
        self._folder = machine_folder / "normals" / ".new"
        self._stride = 1
        self._seen = 0
        self._kept: list[tuple[Path, int]] = []  # and size
        shutil.rmtree(self._folder, ignore_errors=True)

    def keep(self, window: Window) -> None:
        """Every window of the calibration, in turn."""
        number, self._seen = self._seen, self._seen + 1
        if number % self._stride or window.origin or window.gap or not np.isfinite(window.samples).all():
            return
        try:
            limited = np.clip(window.samples, -1.0, 1.0)
            if bits_of(limited) == 32:
                limited = (np.rint(limited * 32767) / 32768).astype(np.float32)  # to listen to, 16 bits will do
            data = encode_sound(limited, window.rate_hz, ".flac")
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / kept_name(window.utc_s)
            path.write_bytes(data)  # not synced: this is between two windows, and a power cut ends the calibration
            self._kept.append((path, len(data)))
            while len(self._kept) > 1 and self._too_many:
                self._thin()
        except (OSError, RuntimeError) as exc:  # soundfile's errors are RuntimeErrors
            log.warning("normal sound not kept for comparison", error=str(exc))

    def finish(self, version: str) -> None:
        """The baseline has been written; the windows go with it."""
        try:
            if not self._kept:
                return
            self._folder.rename(self._folder.with_name(version))
            for old in sorted(self._folder.parent.glob("[!.]*"))[:-KEPT_CALIBRATIONS]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as exc:
            log.warning("normal sound not kept for comparison", error=str(exc))

    def drop(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _too_many(self) -> bool:
        return len(self._kept) > NORMALS_KEPT or sum(size for _, size in self._kept) > NORMALS_BYTES

    def _thin(self) -> None:
        """Drop every second clip; halve the keep rate."""
        for path, _ in self._kept[1::2]:
            path.unlink(missing_ok=True)
        self._kept = self._kept[::2]
        self._stride *= 2


class OutlierClips:
    """Not thread-safe. Never raises: without room there is nothing to listen to."""

    def __init__(self, machine_folder: Path) -> None:
        """`machine_folder`: <state_dir>/machines/<machine>."""
        self._outliers = machine_folder / "outliers"
        self._folder = self._outliers / ".new"
        self._before: deque[Floats] = deque(maxlen=REMEMBERED)
        self._kept: list[tuple[float, WindowRef, Path]] = []  # oddness
        shutil.rmtree(self._folder, ignore_errors=True)

    def keep(self, window: Window, description: Description) -> None:
        """Every window of the calibration, in turn."""
        if not description.embeddings or window.origin:
            return
        oddness = self._oddness(np.concatenate([np.ravel(e) for e in description.embeddings.values()]).astype(float))
        if len(self._kept) >= OUTLIERS_KEPT and oddness <= self._kept[0][0]:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / kept_name(window.utc_s)
            sound = np.rint(np.clip(window.samples, -1.0, 1.0) * 32767) / 32768
            path.write_bytes(
                encode_sound(sound.astype(np.float32), window.rate_hz, ".flac")
            )  # unsynced, see NormalClips
            self._kept.append((oddness, description.ref, path))
            self._kept.sort(key=lambda kept: kept[0])
            while len(self._kept) > OUTLIERS_KEPT:
                self._kept.pop(0)[2].unlink(missing_ok=True)
        except (OSError, RuntimeError) as exc:  # soundfile's errors are RuntimeErrors
            log.warning("outlier of the calibration not kept", error=str(exc))

    def clips(self, baseline: Baseline) -> Baseline:
        """The baseline, whose report names the clips; call `finish` when it has been written."""
        manifest = baseline.manifest
        folder = f"machines/{manifest.machine}/outliers/{manifest.version}"
        found = {where: f"{folder}/{path.name}" for _, where, path in self._kept}
        replace = msgspec.structs.replace
        outliers = [replace(o, clip=found.get(o.window, "")) for o in manifest.report.outliers]
        report = replace(manifest.report, outliers=outliers)
        return replace(baseline, manifest=replace(manifest, report=report))

    def finish(self, baseline: Baseline) -> None:
        """The baseline has been written; the clips that it names go with it, the others go."""
        named = {Path(outlier.clip).name for outlier in baseline.manifest.report.outliers if outlier.clip}
        try:
            for _, _, path in self._kept:
                if path.name not in named:
                    path.unlink(missing_ok=True)
            if named:
                self._folder.rename(self._outliers / baseline.manifest.version)
            else:
                shutil.rmtree(self._folder, ignore_errors=True)
        except OSError as exc:
            log.warning("outlier of the calibration not kept", error=str(exc))

    def drop(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _oddness(self, x: Floats) -> float:
        """x [dim] -> distance to the nearest window so far, in standard deviations of all of them."""
        before = np.array(self._before)
        self._before.append(x)
        if len(before) < 2:
            return 0.0
        sd = before.std(axis=0)
        unit = (before - x) / np.maximum(sd, np.median(sd) / 10 + 1e-9)
        return float(np.sqrt((unit**2).mean(axis=1).min()))
