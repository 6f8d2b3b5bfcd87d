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
        *pip, "download", "-q", "-d", str(wheels), "--python-version", "3.11", "--only-binary=:all:", f"{wheel}[web]",
        timeout=600,
    )  # fmt: skip
    etc = root / "etc" / "asd-agent"
    etc.mkdir(parents=True)
    (etc / "agent.yaml").write_text(CONFIG)
    for unit in ("asd-agent", "asd-agent-web"):
        shutil.copy(REPOSITORY / "systemd" / f"{unit}.service", root / "etc" / "systemd" / "system")
    box = Container(root)
    box.boot()
    try:
        box("python3", "-m", "venv", "/opt/asd-agent")
        box(
            "/opt/asd-agent/bin/pip",
            "install",
            "-q",
            "--no-index",
            "--find-links",
            "/wheels",
            "asd-agent[web]",
            timeout=300,
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
    assert status(container)["machines"][0]["machine"] == "motor"
    said = container("systemd-analyze", "security", "asd-agent", "--no-pager", check=False)
    exposure = float(said.split("Overall exposure level for asd-agent.service:")[1].split()[0])
    assert exposure <= 2.0


def test_the_page_reads_and_asks_but_cannot_write(container):
    """A unit of its own as the daemon's user: it sees the state, and its own folder is all that it can change."""
    container("systemctl", "enable", "--now", "asd-agent", "asd-agent-web", check=False)
    get = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8070{}', timeout=5).read().decode())"

    def ask(path: str) -> str:
        return container("/opt/asd-agent/bin/python", "-c", get.format(path), check=False)

    container.until(lambda: '"daemon":"ok"' in ask("/healthz"), 60, "the page to see the daemon")
    container.until(lambda: '"windows":0' not in ask("/api/v1/machines/motor/scores"), 60, "scores of the store")
    assert "Traceback" not in container("journalctl", "-u", "asd-agent-web", "--no-pager", check=False)
    pid = container("systemctl", "show", "-P", "MainPID", "asd-agent-web").strip()
    inside = ("nsenter", "-t", pid, "-m", "--")
    user = container("stat", "-c", "%u", f"/proc/{pid}").strip()
    write = ("setpriv", f"--reuid={user}", "--clear-groups", "touch")
    assert "Read-only" in container(*inside, *write, "/var/lib/asd-agent/x", check=False)
    assert container(*inside, *write, "/var/lib/asd-agent-web/x", check=False) == ""
    said = container("systemd-analyze", "security", "asd-agent-web", "--no-pager", check=False)
    assert float(said.split("Overall exposure level for asd-agent-web.service:")[1].split()[0]) <= 2.0
    container("systemctl", "stop", "asd-agent")
    container.until(lambda: "503" in ask("/healthz"), 30, "the page to miss the daemon")
    assert '"utc_s":[' in ask("/api/v1/machines/motor/scores")  # the store can be read without the daemon
    container("systemctl", "start", "asd-agent")
    until_active(container)


def test_calibrates_raises_an_alarm_and_keeps_it_over_a_reboot(container):
    """Calibration, alarm and latch live in the state directory; a reboot must not lose any of them."""
    said = container(AGENT, "calibrate", "-c", CONFIG_PATH, "motor", "--duration", "40s", "--promote", timeout=240)
    assert "promoted" in said
    alarm = lambda: status(container)["machines"][0]["alarm"]  # noqa: E731
    container.until(lambda: alarm()["level"] in ("alert", "danger"), 120, "the alarm")
    raised = alarm()["alarm_id"]
    container.reboot()
    until_active(container)
    machine = status(container)["machines"][0]
    assert machine["health"]["baseline"], "the baseline is gone"
    assert machine["alarm"]["alarm_id"] == raised
    container(AGENT, "alarms", "ack", "-c", CONFIG_PATH, "motor", "--by", "test")
    kinds = [json.loads(line)["event_type"] for line in events(container)]
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
