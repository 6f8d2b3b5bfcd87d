"""The windows of a live calibration that are kept to compare an alarm with by ear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_agent.calibration import clips as normals
from asd_agent.types import Block
from asd_agent.windowing.windower import Windower


def test_kept_windows_stay_within_their_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normals, "NORMALS_BYTES", 400_000)
    keeper = normals.NormalClips(tmp_path)
    windower = Windower(8000, 1.0, 0.5, [8000])
    noise = (0.1 * np.random.default_rng(0).standard_normal((8000 * 200, 1))).astype(np.float32)
    windows = windower.push(Block(noise, 8000, 0, 1000.0, 0.0), 0)
    for window in windows:
        keeper.keep(window)
    keeper.finish("v")
    kept = sorted((tmp_path / "normals/v").iterdir())
    assert sum(p.stat().st_size for p in kept) <= 400_000
    assert 8 <= len(kept) <= normals.NORMALS_KEPT
    times = np.array([int(p.stem) for p in kept]) / 1000
    assert np.ptp(np.diff(times)) == 0  # evenly
    assert times[-1] - times[0] > 0.7 * (windows[-1].utc_s - windows[0].utc_s)


def test_only_the_newest_calibrations_are_kept(tmp_path: Path) -> None:
    windower = Windower(8000, 1.0, 0.5, [8000])
    (window,) = windower.push(Block(np.zeros((8000, 1), np.float32), 8000, 0, 1000.0, 0.0), 0)
    for version in ("1", "2", "3", "4", "5"):
        keeper = normals.NormalClips(tmp_path)
        keeper.keep(window)
        keeper.finish(version)
    assert sorted(p.name for p in (tmp_path / "normals").iterdir()) == ["3", "4", "5"]
    gone = normals.NormalClips(tmp_path)
    gone.keep(window)
    gone.drop()
    assert sorted(p.name for p in (tmp_path / "normals").iterdir()) == ["3", "4", "5"]


def test_no_room_for_kept_windows_is_no_failure(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    keeper = normals.NormalClips(blocked)
    windower = Windower(8000, 1.0, 0.5, [8000])
    for window in windower.push(Block(np.zeros((16_000, 1), np.float32), 8000, 0, 0.0, 0.0), 0):
        keeper.keep(window)
    keeper.finish("v")
    assert blocked.read_text() == ""
