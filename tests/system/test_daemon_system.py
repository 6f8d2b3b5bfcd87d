"""The running daemon: start and end, reload, bad input, what its commands show."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import pytest
import soundfile
from daemons import asd, machine
from mosquitto import BINARY, Collector, Mosquitto, wait_for

pytestmark = pytest.mark.system


# -- start and end


def test_sigterm_ends_cleanly(site, broker):
    site.configure(mqtt={"url": broker.url}, agent={"evidence": {"before_s": 1, "after_s": 60}})
    site.start()
    collector = Collector(broker.port, "asd/#")
    wait_for(lambda: collector.last("asd/a/availability") == b"online", "online")
    site.play("faulty")
    site.until(level="danger")
    assert site.stop() == 0
    wait_for(lambda: collector.last("asd/a/availability") == b"offline", "offline")
    collector.close()
    (clip,) = site.state_dir.glob("evidence/m/*.flac")
    assert soundfile.info(clip).duration >= 1.0
    raised = next(event for event in site.events() if event.kind == "raised")
    assert str(clip) == str(site.state_dir / raised.evidence)
    assert not (site.state_dir / "control.sock").exists()
    assert "stopped" in site.said.splitlines()[-1]
    again = site.cli("replay", raised.id)  # in another process, from the clip alone
    assert again.returncode == 0, again.stdout
    assert "every number to the last bit" in again.stdout.splitlines()[-1]
    assert clip.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_second_daemon_is_refused_and_the_first_runs_on(site):
    site.start()
    second = asd("run", "-c", site.path)
    assert second.returncode == 1
    assert len(second.stderr.strip().splitlines()) == 1
    assert f"pid {site.process.pid}" in second.stderr
    site.more_windows()


# -- reload


def test_a_bad_configuration_is_refused_and_the_old_one_runs_on(site):
    site.start()
    good = site.path.read_text()
    for number, (bad, words) in enumerate(
        [
            (good.replace("hop_s", "hops_s"), "hops_s: unknown key"),
            (good.replace("window_s: 1.0", "window_s: ten"), "window_s"),
            (good.replace("id: a", "id: b"), "agent.id cannot change"),
            (good + "mqtt: {url: 'http://x'}\n", "mqtt.url"),
            (good.replace("  id: m\n", "  id: m\n  bundle: nowhere\n"), "no such bundle"),
        ],
        start=1,
    ):
        assert bad != good
        site.path.write_text(bad)
        site.reload()
        wait_for(lambda n=number: site.said.count("reload refused") == n, f"refused: {words}")
        assert words in next(line for line in reversed(site.said.splitlines()) if "reload refused" in line)
        site.path.write_text(good)
        site.more_windows(2)


def test_machines_come_change_and_go(site):
    site.start()
    site.until(state="normal")
    site.copy_baseline("n")
    site.configure(machine(site.folder), machine(site.folder, "n", channel=0, channels=1, hop_s=0.25))
    site.reload()
    wait_for(lambda: len(site.ask("status")["machines"]) == 2, "a second machine")
    site.until("n", state="normal")
    assert site.status("m")["health"]["windows_scored"] > 0
    site.play("faulty")
    site.until("m", level="danger")
    alarm = site.status("m")["alarm"]["alarm_id"]
    site.configure(machine(site.folder, alarm={"window_votes": "2/5"}))
    site.reload()
    wait_for(lambda: len(site.ask("status")["machines"]) == 1, "one machine is gone")
    assert site.status("m")["alarm"]["alarm_id"] == alarm
    site.more_windows()
    assert site.kinds().count("raised") == len({e.machine for e in site.events() if e.kind == "raised"})


# -- bad input


def test_a_tampered_baseline_judges_nothing_and_stops_nobody_else(site):
    site.copy_baseline("n")
    site.configure(machine(site.folder), machine(site.folder, "n"))
    (arrays,) = site.state_dir.glob("machines/m/baselines/*/arrays.npz")
    damaged = bytearray(arrays.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    arrays.write_bytes(damaged)
    site.start()
    status = site.until("m", state="learning", chain="failure")
    assert any("checksum does not match" in reason for reason in status["health"]["reasons"])
    assert status["score"]["score"] is None
    site.until("n", state="normal", chain="good")
    refused = site.cli("score", "m", site.template.folder / "normal.wav")
    assert refused.returncode == 1
    assert "checksum does not match" in refused.stderr


def test_a_corrupt_bundle_stops_the_start_with_one_line(site, tmp_path):
    from asd_agent.encode.bundle import Bundle

    bundle = tmp_path / "bundle"
    shutil.copytree(Bundle.load("default").folder, bundle)
    (graph,) = bundle.glob("*.onnx")
    damaged = bytearray(graph.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    graph.write_bytes(damaged)
    site.configure(machine(site.folder, bundle=str(bundle)))
    done = asd("run", "-c", site.path)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert str(graph) in line
    assert "sha256" in line or "checksum" in line


def test_a_wrong_password_loses_nothing_and_is_mended_without_a_restart(site, tmp_path):
    if BINARY is None or shutil.which("mosquitto_passwd") is None:
        pytest.skip("needs mosquitto (see tests/system/packages.sh)")
    users, password = tmp_path / "users", tmp_path / "password"
    users.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(users), "a", "correct-horse"], check=True, capture_output=True)
    broker = Mosquitto(tmp_path / "broker", "allow_anonymous false", f"password_file {users}")
    broker.start()
    password.write_text("battery-staple")
    site.configure(mqtt={"url": broker.url, "username": "a", "password_file": str(password)})
    site.start()
    wait_for(lambda: "refuses user or password" in site.ask("status")["sink"]["mqtt"]["detail"], "the broker's refusal")
    assert "refuses user or password" in site.cli("doctor").stdout
    site.play("faulty")
    site.until(level="danger")
    waiting = site.ask("status")["sink"]["outbox"]
    assert waiting >= len([event for event in site.events() if event.notify])
    collector = Collector(
        broker.port, "asd/a/m/event", configure=lambda client: client.username_pw_set("a", "correct-horse")
    )
    password.write_text("correct-horse")
    wait_for(lambda: site.ask("status")["sink"]["outbox"] == 0, "everything is sent", 90.0)
    raised = {event.id for event in site.events() if event.kind == "raised"}
    wait_for(lambda: raised <= {json.loads(p)["id"] for p in collector.payloads("asd/a/m/event")}, "all of it arrives")
    collector.close()
    broker.stop()
    assert "battery-staple" not in site.said
    assert "correct-horse" not in site.said


# -- commands


def test_status_and_doctor_of_a_running_daemon(site):
    site.start()
    site.until(state="normal")
    shown = site.cli("status")
    assert shown.returncode == 0
    assert "normal" in shown.stdout
    assert "good" in shown.stdout
    assert json.loads(site.cli("status", "--json").stdout)["machines"][0]["machine"] == "m"
    checked = site.cli("doctor")
    assert checked.returncode == 0, checked.stdout
    assert "daemon: running" in checked.stdout
    assert "held by the daemon" in checked.stdout


def test_watching_ends_with_control_c(site):
    site.start()
    site.until(state="normal")
    out = site.folder / "watched"
    with out.open("wb") as sink:
        command = [sys.executable, "-m", "asd_agent", "status", "--watch", "-c", str(site.path)]
        watch = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
    wait_for(lambda: out.read_text().count("agent a ") >= 2, "the table is shown again")
    watch.send_signal(signal.SIGINT)
    assert watch.wait(20) == 130
    assert "Traceback" not in out.read_text()
