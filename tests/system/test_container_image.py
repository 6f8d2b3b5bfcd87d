"""The container image: built by buildah with pinned and checked packages, and used without root.

The base image is the minimal Debian of the systemd tests with the pinned wheels in it: no image registry is asked.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from container import REPOSITORY, base_system, run, why_not

pytestmark = [
    pytest.mark.slow_client,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        bool(why_not()) or shutil.which("buildah") is None,
        reason=why_not() or "needs buildah (see tests/system/packages.sh)",
    ),
]
CONFIG = """
agent: {id: box, state_dir: /var/lib/asd-agent}
machines: [{id: pump, source: {kind: stdin, rate_hz: 16000}, window_s: 2, hop_s: 1}]
"""


class Buildah:
    """With a store of its own. chroot isolation: it needs no privileges but root's."""

    def __init__(self, folder: Path) -> None:
        self._common = (
            "buildah", "--storage-driver", "vfs", "--root", str(folder / "store"), "--runroot", str(folder / "run"),
        )  # fmt: skip

    def __call__(self, *words: str, timeout: float = 300) -> str:
        done = subprocess.run([*self._common, *words], capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, f"buildah {' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    def start(self, image: str) -> str:
        return self("from", image).splitlines()[-1]

    def within(self, container: str, *words: str, mounts: tuple[str, ...] = ()) -> str:
        volumes = [part for mount in mounts for part in ("--volume", mount)]
        return self("run", "--isolation", "chroot", *volumes, container, "--", *words, timeout=300)


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Buildah:
    return Buildah(tmp_path_factory.mktemp("buildah"))


@pytest.fixture(scope="module")
def image(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Every wheel comes from here, and pip checks each against its sha256 as it does with an index."""
    wheels = tmp_path_factory.mktemp("wheels")
    pinned = str(REPOSITORY / "packaging" / "requirements.txt")
    pip = (sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:", "--python-version", "3.11")
    run(*pip, "--require-hashes", "-r", pinned, "-d", str(wheels), timeout=600)
    base = buildah.start("scratch")
    buildah("add", "-q", base, str(base_system()), "/")
    buildah("add", "-q", base, str(wheels), "/wheels")
    buildah("config", "--env", "PIP_NO_INDEX=1", "--env", "PIP_FIND_LINKS=/wheels", base)
    buildah("commit", "-q", "--rm", base, "base")
    buildah(
        "bud", "--isolation", "chroot", "--network", "host", "--build-arg", "BASE=localhost/base",
        "-f", str(REPOSITORY / "packaging" / "container" / "Containerfile"), "-t", "asd-agent", str(REPOSITORY),
        timeout=1500,
    )  # fmt: skip
    return "localhost/asd-agent"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    folder = tmp_path / "sound"
    folder.mkdir()
    hum = np.sin(2 * np.pi * 50 * np.arange(120 * 16_000) / 16_000)
    noise = np.random.default_rng(0).standard_normal(120 * 16_000)
    soundfile.write(folder / "normal.wav", 0.05 * hum + 0.02 * noise, 16_000)
    (folder / "agent.yaml").write_text(CONFIG)
    tmp_path.chmod(0o755)
    return folder


def test_the_image_starts_the_agent_without_root(buildah: Buildah, image: str) -> None:
    container = buildah.start(image)
    settings = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    assert (settings["User"], settings["Entrypoint"], settings["Cmd"]) == ("asd-agent", ["asd-agent"], ["run"])
    assert buildah.within(container, "asd-agent", "--version") == "asd-agent 0.1.0"
    assert buildah.within(container, "id", "-un") == "asd-agent"
    installed = buildah.within(container, "ls", "/opt/asd-agent/lib/python3.11/site-packages")
    assert not {"pip", "hatchling", "torch"} & set(installed.split())


def test_it_calibrates_and_scores_inside(buildah: Buildah, image: str, sound: Path) -> None:
    container, mounts = buildah.start(image), (f"{sound}:/sound:ro",)

    def asd(*words: str) -> str:
        return buildah.within(container, "asd-agent", *words, mounts=mounts)

    done = json.loads(
        asd("calibrate", "-c", "/sound/agent.yaml", "pump", "--from", "/sound/normal.wav", "--promote", "--json")
    )
    assert done["report"]["windows"] > 100
    rows = asd("score", "-c", "/sound/agent.yaml", "pump", "/sound/normal.wav").splitlines()
    assert rows[0].startswith("file,start_s,duration_s,state,quality,score,p_value,level")
    assert sum(",normal," in row for row in rows) > 100
