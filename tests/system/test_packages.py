"""Wheel and sdist: what is in them, whether an index would take them, and whether they work in an empty environment."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from container import REPOSITORY, run

pytestmark = [pytest.mark.slow_client, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(REPOSITORY), timeout=600)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def test_an_index_would_take_both(built):
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, built.values()))


def test_the_wheel_holds_unit_example_and_bundles_and_no_tests(built):
    names = zipfile.ZipFile(built["wheel"]).namelist()
    for wanted in ("setup/asd-agent.service", "setup/example.yaml", "py.typed", "bundles/spectral/bundle.json"):
        assert f"asd_agent/{wanted}" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"asd_agent", "asd_train", "asd_export"}
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]


def test_the_source_distribution_builds_itself(built, tmp_path):
    """From the sdist comes the same wheel as from the repository."""
    with tarfile.open(built["sdist"]) as archive:
        assert any(name.endswith("/systemd/asd-agent.service") for name in archive.getnames())
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(built["sdist"]), timeout=300)
    (again,) = tmp_path.glob("*.whl")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(built["wheel"]).namelist())


def test_it_installs_into_an_empty_environment_and_works(built, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = (str(python), "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "-q", str(built["wheel"]), timeout=600)
    run(*pip, "check")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"XDG_STATE_HOME": str(tmp_path)}

    def asd(*words: str) -> str:
        done = subprocess.run(
            [python.with_name("asd-agent"), *words], capture_output=True, text=True, cwd=tmp_path, env=environment,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "0.1.0" in asd("--version")
    asd("init", "-o", "agent.yaml", "--yes", "--source", "simulated")
    assert "simulated" in (tmp_path / "agent.yaml").read_text()
    code = "from asd_agent.setup.install import unit; print(unit())"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment, check=True).stdout
    assert f"ExecStart={python.with_name('asd-agent')} run" in said
    assert "torch" not in subprocess.run([*pip, "list"], capture_output=True, text=True, check=True).stdout
