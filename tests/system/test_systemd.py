"""The wheel and the unit in a real systemd: start, alarm, watchdog, reboot, power cut, exposure."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from container import REPOSITORY, Container, base_system, run, why_not

pytestmark = [pytest.mark.system, pytest.mark.timeout(1500)]

CONFIG = """
agent: {id: box, state_dir: /var/lib/asd-agent}
machines:
  - id: motor
    source:
      kind: simulated
      faults: [{kind: bearing, level_db: 0, at_s: 75}]
    window_s: 1
    hop_s: 1
    alarm: {window_votes: "2/3", latch: true}
"""
AGENT = "/opt/asd-agent/bin/asd-agent"
CONFIG_PATH = "/etc/asd-agent/agent.yaml"


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("container")
    root = folder / "root"
    run("cp", "-a", "--reflink=auto", str(base_system()), str(root), timeout=300)
    wheels = root / "wheels"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "-q", "-w", str(wheels), str(REPOSITORY), timeout=300)
    (wheel,) = wheels.glob("asd_agent-*.whl")
    run(
        *pip, "download", "-q", "-d", str(wheels), "--python-version", "3.11", "--only-binary=:all:", str(wheel),
        timeout=600,
    )  # fmt: skip
    etc = root / "etc" / "asd-agent"
    etc.mkdir(parents=True)
    (etc / "agent.yaml").write_text(CONFIG)
    shutil.copy(REPOSITORY / "systemd" / "asd-agent.service", root / "etc" / "systemd" / "system")
    box = Container(root)
    box.boot()
    try:
        box("python3", "-m", "venv", "/opt/asd-agent")
        box(
            "/opt/asd-agent/bin/pip", "install", "-q", "--no-index", "--find-links", "/wheels", "asd-agent", timeout=300
        )
        yield box
    finally:
        box.close()
        shutil.rmtree(root, ignore_errors=True)


def status(box: Container) -> dict:
    return json.loads(box(AGENT, "status", "-c", CONFIG_PATH, "--json") or "{}")


def show(box: Container, name: str) -> str:
    return box("systemctl", "show", "-P", name, "asd-agent").strip()


def until_active(box: Container) -> None:
    box.until(lambda: show(box, "ActiveState") == "active", 60, "the service to become active")


def log(box: Container) -> str:
    return box("journalctl", "-u", "asd-agent", "--no-pager", "-n", "40", check=False)


def test_install_start_and_exposure(container):
    container("systemctl", "enable", "--now", "asd-agent", check=False)
    try:
        until_active(container)
    except AssertionError:
        pytest.fail(log(container))
    assert show(container, "Type") == "notify"
    assert show(container, "DynamicUser") == "yes"
    assert status(container)["machines"][0]["id"] == "motor"
    said = container("systemd-analyze", "security", "asd-agent", "--no-pager", check=False)
    exposure = float(said.split("Overall exposure level for asd-agent.service:")[1].split()[0])
    assert exposure <= 2.0


def test_calibrates_raises_an_alarm_and_keeps_it_over_a_reboot(container):
    """Calibration, alarm and latch live in the state directory; a reboot must not lose any of them."""
    said = container(AGENT, "calibrate", "-c", CONFIG_PATH, "motor", "--duration", "40s", "--promote", timeout=240)
    assert "promoted" in said
    alarm = lambda: status(container)["machines"][0]["alarm"]  # noqa: E731
    container.until(lambda: alarm()["level"] != "normal", 120, "the alarm")
    raised = alarm()["event_id"]
    container.reboot()
    until_active(container)
    machine = status(container)["machines"][0]
    assert machine["baseline"], "the baseline is gone"
    assert machine["alarm"]["event_id"] == raised
    container(AGENT, "alarms", "ack", "-c", CONFIG_PATH, "motor", "--by", "test")
    kinds = [json.loads(line)["kind"] for line in events(container)]
    assert kinds.count("raised") >= 1
    assert kinds[-1] == "acknowledged" or "acknowledged" in kinds


def events(box: Container) -> list[str]:
    return box(AGENT, "alarms", "list", "-c", CONFIG_PATH, "--json").strip().splitlines()


def test_a_power_cut_loses_no_alarm(container):
    before = events(container)
    assert before
    container.power_cut()
    until_active(container)
    assert set(before) <= set(events(container))


def test_the_watchdog_restarts_a_pipeline_that_hangs(container):
    """A debugger's breakpoint in effect: the process lives, nothing moves. Shorter interval, same mechanism."""
    dropin = container.root / "etc/systemd/system/asd-agent.service.d"
    dropin.mkdir(parents=True)
    (dropin / "fast.conf").write_text("[Service]\nWatchdogSec=8\nRestartSec=1\n")
    container("systemctl", "daemon-reload")
    container("systemctl", "restart", "asd-agent")
    until_active(container)
    first = show(container, "MainPID")
    hang(container)
    container.until(
        lambda: show(container, "MainPID") not in ("0", first) and show(container, "ActiveState") == "active",
        90,
        "the watchdog",
    )
    assert "watchdog" in log(container).lower()


def hang(box: Container) -> None:
    """A bundle whose graph never ends: the worker hangs in onnxruntime while all other threads go on."""
    from endless_bundle import write

    write(box.root / "etc/asd-agent/endless")
    (box.root / "etc/asd-agent/agent.yaml").write_text(CONFIG + "    bundle: /etc/asd-agent/endless\n")
    box("systemctl", "reload", "asd-agent")
