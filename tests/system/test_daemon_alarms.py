"""The running daemon, its alarms and its calibration: through the shell, over MQTT, and over SIGKILL."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
from daemons import machine
from mosquitto import Collector, wait_for

from asd_agent.types import utc_s

pytestmark = pytest.mark.system


def test_a_fault_is_told_acknowledged_and_clears(site):
    site.configure(machine(site.folder, alarm={"latch": True}))
    site.start()
    site.until(state="normal")
    refused = site.cli("alarms", "ack", "m")
    assert refused.returncode == 1
    assert "no active or latched alarm" in refused.stderr
    site.play("faulty")
    site.until(level="danger")
    site.play("normal")
    latched = site.until(state="normal", level="danger")
    wait_for(lambda: site.status()["alarm"]["latched"], "the alarm is latched")
    assert latched["alarm"]["alarm_id"]
    done = site.cli("alarms", "ack", "m", "--by", "eva", "--reason", "bearing greased")
    assert (done.returncode, done.stdout.strip()) == (0, "m: acknowledged")
    assert site.status()["alarm"]["level"] == "normal"
    kinds = [kind for kind in site.kinds() if kind in ("raised", "cleared", "acknowledged")]
    assert kinds == ["raised", "cleared", "acknowledged"]
    listed = site.cli("alarms", "list", "m").stdout
    assert "bearing greased" in listed
    assert "eva" in listed
    rows = [json.loads(line) for line in site.cli("alarms", "list", "--json").stdout.splitlines()]
    assert [row["id"] for row in rows] == [event.id for event in site.events()]


def test_an_alarm_outlives_sigkill(site):
    site.configure(machine(site.folder, alarm={"latch": True}))
    site.play("faulty")
    site.start()
    before = site.until(level="danger")["alarm"]
    site.kill()
    site.play("normal")
    site.start()
    assert site.status()["alarm"]["alarm_id"] == before["alarm_id"]
    assert site.status()["alarm"]["since"] == before["since"]
    site.until(state="normal")
    wait_for(lambda: site.status()["alarm"]["latched"], "the condition goes, the alarm stays")
    site.kill()
    site.start()
    assert site.status()["alarm"]["latched"]
    site.cli("alarms", "ack", "m")
    site.kill()
    site.start()
    assert site.status()["alarm"]["level"] == "normal"
    ids = [event.id for event in site.events()]
    assert len(ids) == len(set(ids))


def test_a_shelved_alarm_is_recorded_and_told_when_shelving_ends(site):
    site.start()
    site.until(state="normal")
    assert site.cli("alarms", "shelve", "m", "--for", "1h", "--reason", "repair").returncode == 0
    site.play("faulty")
    site.until(level="danger")
    raised = next(event for event in site.events() if event.kind == "raised")
    assert not raised.notify
    site.kill()
    site.start()
    assert utc_s(site.status()["alarm"]["shelved_until"]) > time.time()
    assert site.cli("alarms", "unshelve", "m").returncode == 0
    told = [event for event in site.events() if event.notify and event.kind == "raised"]
    assert [event.alarm_id for event in told] == [raised.alarm_id]


def test_a_shelving_runs_out(site):
    site.start()
    site.ask("shelve", machine="m", minutes=0.02)
    wait_for(lambda: "unshelved" in site.kinds(), "the shelving has run out")
    assert site.status()["alarm"]["shelved_until"] is None


# -- calibration and baselines


def test_calibrating_in_the_running_daemon(site):
    site.start()
    site.until(state="normal")
    first = site.status()["health"]["baseline"]
    done = site.cli("calibrate", "m", "--duration", "10s", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["report"]["windows"] >= 15
    assert site.status()["health"]["baseline"] == first
    assert site.cli("baseline", "promote", "m").returncode == 0
    assert site.status()["health"]["baseline"] == answer["version"]
    assert site.cli("baseline", "rollback", "m").returncode == 0
    assert site.status()["health"]["baseline"] == first
    assert len(json.loads(site.cli("baseline", "list", "--json").stdout)) == 2
    again = site.cli("calibrate", "m", "--from", site.template.folder / "normal.wav", "--promote")
    assert again.returncode == 0, again.stderr
    assert site.status()["health"]["baseline"] not in (first, answer["version"])
    assert "active" in site.cli("baseline", "list", "m").stdout
    site.more_windows()


def test_a_promotion_that_was_answered_during_a_reload_stands(site):
    site.start()
    site.until(state="normal")
    first = site.status()["health"]["baseline"]
    assert site.cli("calibrate", "m", "--from", site.template.folder / "normal.wav", "--promote").returncode == 0
    second = site.status()["health"]["baseline"]
    for number in range(6):
        wanted = (first, second)[number % 2]
        site.configure(machine(site.folder, alarm={"window_votes": ("2/4", "3/4")[number % 2]}))  # it is made anew
        site.reload()
        time.sleep(0.05 * number)
        assert "active baseline is now" in site.ask("promote", machine="m", version=wanted)
        wait_for(lambda n=number: site.said.count("reloaded") == n + 1, "the reload is through")
        assert site.status()["health"]["baseline"] == wanted


def test_a_calibration_can_be_cancelled_and_fail_without_harm(site):
    site.start()
    first = site.status()["health"]["baseline"]
    site.ask("calibrate", machine="m", duration_s=3600)
    wait_for(lambda: site.ask("calibration", machine="m")["windows"] > 0, "windows are gathered")
    assert "calibrating" in site.status()["health"]["reasons"]
    second = site.cli("calibrate", "m", "--duration", "1m")
    assert second.returncode == 1
    assert "already running" in second.stderr
    site.ask("cancel_calibration", machine="m")
    assert site.ask("calibration", machine="m")["phase"] == "cancelled"
    little = site.cli("calibrate", "m", "--duration", "1s", "--promote")
    assert little.returncode == 1
    assert "at least 6 are needed" in little.stderr
    absent = site.cli("calibrate", "m", "--from", site.folder / "absent.wav")
    assert absent.returncode == 1
    assert "absent.wav" in absent.stderr
    assert site.status()["health"]["baseline"] == first
    site.more_windows()


# -- over MQTT


def test_control_c_cancels_a_calibration(site):
    site.start()
    first = site.status()["health"]["baseline"]
    command = [sys.executable, "-m", "asd_agent", "calibrate", "-c", str(site.path), "m", "--duration", "1h"]
    waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    site.until_reason("calibrating")
    waiting.send_signal(signal.SIGINT)
    _, errors = waiting.communicate(timeout=30)
    assert waiting.returncode == 1, errors
    assert errors.strip().endswith("calibration cancelled, nothing was changed")
    assert site.ask("calibration", machine="m")["phase"] == "cancelled"
    assert site.status()["health"]["baseline"] == first


def test_the_same_verbs_over_mqtt(site, broker):
    verbs = ["status", "ack", "shelve", "unshelve", "out_of_service", "calibrate", "calibration", "cancel_calibration"]
    site.configure(mqtt={"url": broker.url, "requests": [*verbs, "promote", "rollback"]})
    site.start()
    collector = Collector(broker.port, "asd/#")
    wait_for(lambda: collector.last("asd/a/m/availability") == b"online", "the machine is available")

    def request(verb: str, **data: object) -> dict[str, object]:
        topic = f"asd/a/response/{verb}"
        before = len(collector.payloads(topic))
        collector.client.publish(f"asd/a/request/{verb}", json.dumps({"transaction": before, **data}), qos=1)
        wait_for(lambda: len(collector.payloads(topic)) > before, f"an answer to {verb}")
        answer: dict[str, object] = json.loads(collector.payloads(topic)[-1])
        assert answer["transaction"] == before
        return answer

    site.until(state="normal")
    assert request("status")["status"] == "ok"
    assert "no machine 'x'" in str(request("ack", machine="x")["error"])
    assert "machine" in str(request("ack")["error"])
    assert "'dance' is not served over MQTT" in str(request("dance")["error"])
    assert "'rename_state' is not served over MQTT" in str(request("rename_state", machine="m")["error"])
    assert "unknown field" in str(request("ack", machine="m", colour="red")["error"])
    site.play("faulty")
    site.until(level="danger")
    assert request("ack", machine="m", by="eva", reason="seen")["data"] == "m: acknowledged"
    assert request("shelve", machine="m", minutes=5, by="eva")["status"] == "ok"
    assert request("unshelve", machine="m")["status"] == "ok"
    assert request("out_of_service", machine="m", on=True)["status"] == "ok"
    assert request("out_of_service", machine="m", on=False)["status"] == "ok"
    wait_for(lambda: json.loads(collector.last("asd/a/m/alarm") or b"{}").get("acknowledged_by") == "eva", "retained")
    site.play("normal")
    site.until(level="normal")
    paths = [str(site.template.folder / "normal.wav")]
    assert "not accepted over MQTT" in str(request("calibrate", machine="m", paths=paths)["error"])
    assert request("calibrate", machine="m", duration_s=600)["status"] == "ok"
    assert request("cancel_calibration", machine="m")["status"] == "ok"
    site.ask("calibrate", machine="m", paths=paths)
    wait_for(lambda: request("calibration", machine="m")["data"]["phase"] == "done", "calibrated")
    assert request("promote", machine="m")["status"] == "ok"
    assert request("rollback", machine="m")["status"] == "ok"
    sent = {json.loads(p)["id"] for p in collector.payloads("asd/a/m/event")}
    wait_for(lambda: {e.id for e in site.events()} == {json.loads(p)["id"] for p in
             collector.payloads("asd/a/m/event")}, "every event has arrived")  # fmt: skip
    assert sent
    collector.close()
