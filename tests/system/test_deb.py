"""The Debian package in a real systemd: built, installed, from nothing to the first alarm, upgraded, purged."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest
import soundfile
from container import REPOSITORY, Container, base_system, run, why_not
from daemons import machine_sound

from asd_agent import config

pytestmark = [pytest.mark.slow_client, pytest.mark.timeout(2400)]

PAGE = REPOSITORY / "docs" / "quickstart.md"
RATE = 16_000
NORMAL_S, FAULTY_S = 110, 150
CALIBRATION_S = 60
PATIENCE_S = 180.0  # for everything but the calibration


def built(root: Path) -> list[Path]:
    """The package, built inside the system that it is for, and its next revision."""
    (root / "packages").mkdir()
    command = "cd / && COMPRESSION=none PIP_ARGS='--no-index --find-links /wheels' sh /packaging/deb/build.sh"
    run("chroot", str(root), "sh", "-c", f"{command} /wheels/asd_agent-*.whl /packages", timeout=1200)
    (first,) = (root / "packages").glob("asd-agent_*.deb")
    unpacked = root / "tmp" / "next"
    run("dpkg-deb", "-R", str(first), str(unpacked), timeout=300)
    control = unpacked / "DEBIAN" / "control"
    control.write_text(re.sub(r"^(Version: .*)-1$", r"\1-2", control.read_text(), flags=re.MULTILINE))
    second = first.with_name(first.name.replace("-1_", "-2_"))
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(unpacked), str(second), timeout=300)
    shutil.rmtree(unpacked)
    return [first, second]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    if reason := why_not():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("deb") / "root"
    run("cp", "-a", "--reflink=auto", str(base_system()), str(root), timeout=300)
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    run("chroot", str(root), "apt-get", "update", "-q", timeout=300)
    run("chroot", str(root), "apt-get", "install", "-y", "-q", "--no-install-recommends", "libportaudio2", timeout=300)
    wheels = root / "wheels"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "-q", "-w", str(wheels), str(REPOSITORY), timeout=300)
    (wheel,) = wheels.glob("asd_agent-*.whl")
    run(
        *pip, "download", "-q", "-d", str(wheels), "--python-version", "3.11", "--only-binary=:all:", str(wheel),
        timeout=600,
    )  # fmt: skip
    shutil.copytree(REPOSITORY / "packaging", root / "packaging")
    sounds = root / "srv" / "sound"
    sounds.mkdir(parents=True)
    fault = config.Fault(kind="bearing", level_db=0)
    soundfile.write(sounds / "1-normal.flac", machine_sound(NORMAL_S), RATE)
    soundfile.write(sounds / "2-faulty.flac", machine_sound(FAULTY_S, fault, seed=1), RATE)
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def box(root):
    built(root)
    made = Container(root)
    made.boot()
    yield made
    made.close()


def transcript() -> list[str]:
    """The commands of the page, in their order."""
    block = re.search(r"<!-- transcript -->\n```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    return [line.removeprefix("$ sudo ") for line in block[1].splitlines() if line.startswith("$ ")]


def status(box: Container) -> dict:
    return json.loads(box("asd-agent", "status", "--json"))


def test_from_nothing_to_the_first_alarm(box):
    """The page's commands as printed: at most four, and little waiting besides the calibration."""
    commands = transcript()
    assert len(commands) <= 4
    began = time.monotonic()
    for command in commands[:-1]:
        command = command.replace("./asd-agent", "/packages/asd-agent").replace("_amd64", "_*")
        if command.startswith("apt"):
            said = box("sh", "-c", f"DEBIAN_FRONTEND=noninteractive {command} -y --no-install-recommends", timeout=300)
            assert "asd-agent init" in said  # the package says the next command
        else:
            said = box(*shlex.split(command), timeout=300)
    assert "promoted" in said
    box.until(lambda: "raised" in box(*shlex.split(commands[-1])), PATIENCE_S, "the alarm")
    waited = time.monotonic() - began - CALIBRATION_S
    assert waited < PATIENCE_S
    machine = status(box)["machines"][0]
    assert machine["machine"] == "compressor-1"
    assert machine["alarm"]["level"] in ("alert", "danger")


def test_what_belongs_to_a_package_is_there(box):
    for path in (
        "/usr/lib/systemd/system/asd-agent.service", "/usr/share/man/man1/asd-agent.1.gz",
        "/usr/share/bash-completion/completions/asd-agent", "/usr/lib/sysusers.d/asd-agent.conf",
        "/usr/share/doc/asd-agent/agent.yaml.example",
    ):  # fmt: skip
        box("test", "-s", path)
    assert "asd-operator" in box("getent", "group", "asd-operator")
    assert box("systemctl", "is-enabled", "asd-agent").strip() == "enabled"
    box("asd-agent", "doctor", check=False)
    said = box(
        "sh", "-c", "grep -rl asd-agent_stage /opt/asd-agent/bin; grep -rIl '/tmp/tmp' /opt/asd-agent/bin", check=False
    )
    assert not said.strip()


def test_an_upgrade_keeps_the_alarms(box):
    before = box("asd-agent", "alarms", "list", "--json").splitlines()
    assert before
    pid = box("systemctl", "show", "-P", "MainPID", "asd-agent").strip()
    box("sh", "-c", "dpkg -i /packages/asd-agent_*-2_*.deb", timeout=300)
    box.until(lambda: box("systemctl", "show", "-P", "ActiveState", "asd-agent").strip() == "active", 60, "the service")
    assert box("systemctl", "show", "-P", "MainPID", "asd-agent").strip() != pid
    after = box("asd-agent", "alarms", "list", "--json").splitlines()
    assert set(before) <= set(after)
    assert status(box)["machines"][0]["health"]["baseline"]


def test_remove_keeps_and_purge_deletes(box):
    box("dpkg", "--remove", "asd-agent", timeout=120)
    assert box("systemctl", "is-active", "asd-agent", check=False).strip() == "inactive"
    box("test", "-s", "/etc/asd-agent/agent.yaml")
    box("test", "-s", "/var/lib/asd-agent/agent.db")
    box("dpkg", "--purge", "asd-agent", timeout=120)
    left = "/etc/asd-agent /var/lib/asd-agent /var/lib/private/asd-agent /opt/asd-agent /usr/bin/asd-agent"
    assert not box("sh", "-c", f"ls -d {left} 2>/dev/null", check=False).strip()
