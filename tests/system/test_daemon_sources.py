"""The running daemon and its sources: dead, hung, silent, shared, too fast, too slow, at their end."""

from __future__ import annotations

import csv
import io
import json

import pytest
import soundfile
from daemons import RATE, children_readable, machine, machine_sound
from mosquitto import Collector, wait_for

pytestmark = pytest.mark.system


def test_a_dead_and_a_hung_source_are_replaced(site):
    site.start()
    site.until(state="normal", available=True)
    for mode in ("die", "hang"):
        restarts = site.status()["health"]["restarts"]
        site.play(mode)
        lost = site.until(available=False, chain="failure")
        assert "source unavailable" in lost["health"]["reasons"][0]
        wait_for(lambda n=restarts: site.status()["health"]["restarts"] > n, "the child is replaced")
        site.play("normal")
        site.until(available=True, state="normal")
        site.more_windows()
    assert site.status()["alarm"]["level"] == "normal"
    assert site.status()["health"]["gaps"] >= 2


def test_silence_is_no_healthy_machine(site):
    site.start()
    site.until(state="normal")
    site.play("silent")
    site.until_reason("silence in")
    lost = site.until(state="not_assessable", chain="failure")
    assert lost["health"]["source_available"]
    assert lost["score"]["score"] is None
    site.until(level="unknown")
    site.play("normal")
    site.until(state="normal", chain="good")


@pytest.mark.skipif(not children_readable(), reason="this kernel does not list a process's children")
def test_two_machines_share_one_device(site):
    for name in ("left", "right"):
        site.copy_baseline(name)
    site.play("both_normal")
    site.configure(
        machine(site.folder, "left", channel=0, channels=2), machine(site.folder, "right", channel=1, channels=2)
    )
    site.start()
    site.until("left", state="normal")
    site.until("right", state="normal")
    assert len(site.children()) == 1
    site.play("left_faulty")
    site.until("left", level="danger")
    assert site.status("right")["alarm"]["level"] == "normal"
    site.more_windows(name="right")
    assert {event.machine for event in site.events() if event.kind == "raised"} == {"left"}


def test_a_host_that_is_too_slow_counts_what_it_drops(site):
    fast = machine(site.folder, hop_s=0.1, window_s=10.0)
    fast["source"]["argv"][-1] = "1000"
    site.configure(fast)
    site.start()
    site.until_reason("dropped: this host is too slow")
    site.more_windows(2)
    status = site.status()
    assert status["health"]["windows_dropped"] > 0
    assert status["health"]["lag_s"] > 0
    assert "dropped" in site.cli("status").stdout


def test_a_source_slower_than_the_bundle_is_a_failure_that_says_so(site):
    slow = machine(site.folder)
    slow["source"]["rate_hz"] = 8000
    site.configure(slow)
    site.start()
    assert "wants 16000 Hz" in site.until_reason("8000 Hz")
    site.until(available=False, chain="failure")
    assert site.said.count("no usable sound") == 1


def test_a_source_of_recordings_is_scored_whole_and_then_unavailable(site):
    """Faster than life, and yet no window is dropped; the same numbers as `score`."""
    soundfile.write(site.folder / "recording.flac", machine_sound(60, seed=4), RATE)
    recording = {"kind": "file", "path": str(site.folder / "recording.flac"), "pace": "fast"}
    site.configure({**machine(site.folder), "source": recording})
    site.start()
    ended = site.until(available=False, chain="failure")
    rows = list(csv.DictReader(io.StringIO(site.cli("score", "m", site.folder / "recording.flac").stdout)))
    wait_for(lambda: site.status()["health"]["windows_scored"] == len(rows) == 119, "all windows are scored")
    assert site.status()["health"]["windows_dropped"] == 0
    assert "read to its end" in ended["health"]["reasons"][0]
    assert f"{site.status()['score']['score']:.4g}" == f"{float(rows[-1]['score']):.4g}"
    assert site.stop() == 0


def test_health_scores_and_intervals(site, broker):
    site.configure(mqtt={"url": broker.url, "score_interval_s": 2})
    site.start()
    collector = Collector(broker.port, "asd/#")
    site.until(state="normal")
    wait_for(lambda: len(collector.payloads("asd/a/m/score")) >= 2, "two intervals")
    score = json.loads(collector.payloads("asd/a/m/score")[-1])
    assert score["window_count"] >= 2
    assert sum(score["states"].values()) == score["window_count"]
    assert score["score_limit"] > 0
    wait_for(lambda: json.loads(collector.last("asd/a/m/health") or b"{}").get("windows_scored", 0) > 0, "health")
    health = json.loads(collector.last("asd/a/m/health"))
    assert health["status"] == "good"
    assert health["source_available"]
    assert health["reasons"] == []
    assert health["baseline"] == site.status()["health"]["baseline"]
    assert health["lag_s"] < 20
    assert health["last_window_end"].endswith("Z")
    site.play("die")
    wait_for(lambda: collector.last("asd/a/m/availability") == b"offline", "unavailable", 40)
    lost = json.loads(collector.last("asd/a/m/health"))
    assert (lost["status"], lost["source_available"]) == ("failure", False)
    site.play("normal")
    wait_for(lambda: collector.last("asd/a/m/availability") == b"online", "available again", 40)
    collector.close()
