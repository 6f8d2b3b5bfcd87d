"""A public checkpoint becomes a bundle, learns real machines, and scores them: the whole way by its commands."""

from __future__ import annotations

import csv

import pytest
import yaml

from asd_agent.cli import main as agent
from asd_export.cli import main as export

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(shared_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "mn04"
    checkpoint = shared_dir / "checkpoints" / "mn04_as_mAP_432.pt"
    assert export(["bundle", str(checkpoint), "--window-s", "2", "-o", str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    ("normal", "unseen", "faulty"),
    [
        ("compressor/rest/20260302_0[0-2]*.flac", "compressor/rest/20260302_03*.flac", None),
        ("bldc_m1/healthy/rpm1[67]50.flac", "bldc_m1/healthy/rpm1[67]50.flac", "bldc_m1/propeller/rpm1[67]50.flac"),
    ],
    ids=["compressor", "bldc"],
)
def test_bundle_calibrate_score(shared_dir, bundle, tmp_path, normal, unseen, faulty):
    machine = {
        "id": "m",
        "source": {"kind": "stdin", "rate_hz": 48000},
        "window_s": 2,
        "hop_s": 1,
        "bundle": str(bundle),
    }
    settings = {"agent": {"id": "t", "state_dir": str(tmp_path / "state")}, "machines": [machine]}
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump(settings))
    files = lambda pattern: [str(p) for p in sorted((shared_dir / "data").glob(pattern))]  # noqa: E731
    assert agent(["calibrate", "-c", str(path), "m", "--from", *files(normal), "--promote"]) == 0

    def scores(pattern: str) -> list[float]:
        out = tmp_path / "scores.csv"
        assert agent(["score", "-c", str(path), "m", *files(pattern), "-o", str(out)]) == 0
        return [float(row["score"]) for row in csv.DictReader(out.open()) if row["score"]]

    usual = sorted(scores(unseen))
    assert usual
    assert usual[len(usual) // 2] < 2, "half of the normal windows look like one in a hundred"
    if faulty is not None:
        odd = sorted(scores(faulty))
        assert odd[len(odd) // 2] > usual[len(usual) // 2] + 0.3
