from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from asd_agent.baseline import Baseline, BaselineStore, DetectorCalibration, Manifest, Report, StateCalibration
from asd_agent.decide.fusion import Fusion, Spread
from asd_agent.decide.logscore import LogScore
from asd_agent.decide.support import Support
from asd_agent.errors import BaselineError, StoreError
from asd_agent.windowing.signal_chain import SignalChain


def made(version: str) -> Baseline:
    support = Support(per_month=1, low=0.5, high=2, strays=0, supported=True, more_hours=None, more_days=None)
    spread = Spread(within=1, between=0, windows=3, blocks=2, sessions=1)
    fusion = Fusion(median=0, scale=1, spread=spread)
    report = Report(
        windows=3, seconds=30, excluded={}, left_out=[], support=support, budget_per_month=1.0,
        verdict="Good.",
        facts=["fine"], concerns=[],
    )  # fmt: skip
    chain = SignalChain(source="s", level_dbfs=-20, level_low_dbfs=-21, level_high_dbfs=-19)
    manifest = Manifest(
        version=version, machine="m", created_utc_s=1.0, window_s=10, hop_s=5, bundles={"b": "0" * 64},
        chain=chain, report=report,
        states=[StateCalibration(
            name="running", windows=3, level_dbfs=-20, fused=["d"], fusion=fusion,
            detectors={"d": DetectorCalibration(kind="whitened", log_score=LogScore(median=0, scale=1))},
        )],
    )  # fmt: skip
    return Baseline(manifest=manifest, arrays={"running/d/x": np.arange(6.0).reshape(2, 3)})


@pytest.fixture
def store(tmp_path):
    return BaselineStore(tmp_path, "m")


def write(store: BaselineStore) -> str:
    version = store.new_version()
    store.write(made(version))
    return version


def test_round_trip(store):
    version = write(store)
    loaded = store.load(version)
    assert loaded.manifest == made(version).manifest
    np.testing.assert_array_equal(loaded.part("running/d")["x"], np.arange(6.0).reshape(2, 3))


def test_calibrating_anew_keeps_the_active_baseline(store):
    first = write(store)
    store.promote()
    second = write(store)
    assert first != second
    assert store.pointers().active == first
    assert store.pointers().candidate == second


def test_promote_and_rollback(store):
    first = write(store)
    store.promote()
    second = write(store)
    store.promote()
    assert (store.pointers().active, store.pointers().previous) == (second, first)
    store.rollback()
    assert (store.pointers().active, store.pointers().candidate) == (first, second)
    with pytest.raises(BaselineError, match="no previous"):
        store.rollback()


def test_promote_without_a_candidate(store):
    with pytest.raises(BaselineError, match="no candidate"):
        store.promote()


@pytest.mark.parametrize("name", ["baseline.json", "arrays.npz"])
def test_a_tampered_baseline_is_refused_and_never_promoted(store, name):
    version = write(store)
    path = store.folder / "baselines" / version / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BaselineError, match=f"{name}: the checksum"):
        store.promote()
    assert store.pointers().active is None


@pytest.mark.parametrize("name", ["baseline.json", "arrays.npz", "SHA256SUMS"])
def test_an_incomplete_baseline_is_one_clear_line(store, name):
    version = write(store)
    (store.folder / "baselines" / version / name).unlink()
    with pytest.raises(BaselineError, match="incomplete"):
        store.load(version)


def test_the_checksums_can_be_checked_by_hand(store):
    version = write(store)
    folder = store.folder / "baselines" / version
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def test_a_damaged_pointer_file_names_the_remedy(store):
    version = write(store)
    (store.folder / "pointers.json").write_text("{")
    with pytest.raises(BaselineError, match=f"promote one of: {version}"):
        store.pointers()


def test_an_unwritable_folder(tmp_path):
    blocked = tmp_path / "machines"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="cannot be written"):
        write(BaselineStore(tmp_path, "m"))


def test_an_interrupted_write_leaves_nothing_that_counts(store):
    version = write(store)
    half = store.folder / "baselines" / ".20990101T000000Z"
    half.mkdir()
    (half / "baseline.json").write_text(json.dumps({}))
    assert store.versions() == [version]
