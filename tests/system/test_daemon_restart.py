"""After a restart: nothing stays retained of machines and names that are gone, and clips are where events say."""

from __future__ import annotations

import json
import time

import pytest
from daemons import machine
from mosquitto import Collector, wait_for

pytestmark = pytest.mark.system


def retained(broker, below="#"):
    """What a subscriber who comes now is told."""
    late = Collector(broker.port, below)
    time.sleep(0.5)
    found = {m.topic: bytes(m.payload) for m in late.messages if m.retain}
    late.close()
    return found


def test_machines_and_names_that_are_gone_leave_nothing_retained(site, broker):
    site.copy_baseline("n")
    mqtt = {"url": broker.url, "discovery": "homeassistant"}

    def of(*prefixes):
        return [topic for topic in retained(broker) if topic.startswith(prefixes)]

    of_n, of_a = ("asd/a/n/", "homeassistant/device/asd_a_n_"), ("asd/a/", "homeassistant/device/asd_a_")
    site.configure(machine(site.folder), machine(site.folder, "n"), mqtt=mqtt)
    site.start()
    wait_for(lambda: {"asd/a/n/alarm", "asd/a/n/health", "asd/a/n/availability"} <= retained(broker).keys(), "all of n")
    wait_for(lambda: len(of("homeassistant/device/")) == 3, "the agent and two machines are announced")
    assert site.stop() == 0
    site.configure(machine(site.folder), mqtt=mqtt)  # while the daemon is not running
    site.start()
    wait_for(lambda: not of(*of_n), "nothing of n is retained")
    assert "asd/a/m/alarm" in retained(broker)
    assert len(of("homeassistant/device/")) == 2
    assert site.stop() == 0
    renamed = {"id": "b", "state_dir": str(site.state_dir)}
    site.configure(machine(site.folder), mqtt=mqtt | {"discovery_prefix": "home"}, agent=renamed)
    site.start()
    wait_for(lambda: not of(*of_a), "nothing of the old name is retained")
    wait_for(lambda: "asd/b/m/alarm" in retained(broker), "the new name is there")
    wait_for(lambda: len(of("home/device/asd_b_")) == 2, "and announced where it is wanted now")


def test_a_clip_that_an_event_names_is_there_after_a_kill(site, broker):
    evidence = {"before_s": 4.0, "after_s": 120.0}  # it cannot be complete when the daemon is killed
    sections = {"agent": {"id": "a", "state_dir": str(site.state_dir), "evidence": evidence}}
    site.configure(machine(site.folder, alarm={"window_votes": "2/3"}), mqtt={"url": broker.url}, **sections)
    site.start()
    site.more_windows(5)
    site.play("faulty")
    wait_for(lambda: "raised" in site.kinds(), "an alarm is raised", 60.0)
    (named,) = {event.evidence for event in site.events() if event.evidence}
    wait_for(lambda: list((site.state_dir / "evidence").glob("*/.begun-*.flac")) != [], "the beginning is saved")
    assert not (site.state_dir / named).exists()
    site.kill()
    site.start()
    assert (site.state_dir / named).exists()
    assert (site.state_dir / named).with_suffix(".json").exists()
    told = Collector(broker.port, "asd/a/m/alarm")
    wait_for(lambda: told.last("asd/a/m/alarm") is not None, "the alarm is retained")
    assert json.loads(told.last("asd/a/m/alarm"))["evidence"] == named
    told.close()
    site.kill()
    (site.state_dir / named).unlink()
    site.start()
    wait_for(lambda: json.loads(retained(broker)["asd/a/m/alarm"])["evidence"] == "", "the clip is withdrawn")
