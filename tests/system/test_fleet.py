"""`asd-agent fleet` on real daemons behind a real broker: a roll-out that goes through, one that goes back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from daemons import NORMAL_S, RATE, Site, Template, asd, machine, machine_sound
from mosquitto import wait_for

from asd_agent.baseline import BaselineStore

pytestmark = [pytest.mark.system, pytest.mark.slow_client]
AGENTS = ("hall-1", "hall-2", "hall-3")


class Fleet:
    def __init__(self, folder: Path, template: Template, url: str) -> None:
        self.folder, self.template = folder, template
        made = asd("fleet", "key", "-o", folder / "fleet.key")
        assert made.returncode == 0, made.stderr
        self.artefacts = yaml.safe_load(made.stdout[made.stdout.index("artefacts:") :])["artefacts"]
        (folder / "fleet.yaml").write_text(yaml.safe_dump({"mqtt": {"url": url}, "agents": list(AGENTS)}))
        self.sites: dict[str, Site] = {}
        requests = ["status", "promote", "rollback", "install"]
        for name in AGENTS:
            (folder / name).mkdir()
            site = self.sites[name] = Site(folder / name, template)
            site.configure(
                machine(site.folder), agent={"id": name}, artefacts=self.artefacts,
                mqtt={"url": url, "requests": requests},
            )  # fmt: skip
            site.start()

    def packed(self, name: str, sound) -> tuple[Path, str]:
        """A signed baseline of the machine, learnt from a sound on another host."""
        host = self.folder / name
        host.mkdir()
        soundfile.write(host / "sound.wav", sound, RATE)
        self.template.configure(host / "agent.yaml", [machine(self.template.folder)], host / "state")
        done = asd("calibrate", "-c", host / "agent.yaml", "m", "--from", host / "sound.wav")
        assert done.returncode == 0, done.stderr
        artefact = host / "m.asd"
        done = asd("fleet", "pack-baseline", "-c", host / "agent.yaml", "m", "--key", self.folder / "fleet.key",
                   "--for", "hall-*", "-o", artefact)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return artefact, BaselineStore(host / "state", "m").versions()[-1]

    def run(self, action: str, *words: object) -> subprocess.CompletedProcess[str]:
        return asd("fleet", action, "-f", self.folder / "fleet.yaml", *words, timeout_s=200)

    def active(self) -> dict[str, str]:
        return {
            name: site.status()["health"]["baseline"] for name, site in self.sites.items() if site.process is not None
        }


@pytest.fixture
def fleet(tmp_path, template, broker):
    made = Fleet(tmp_path, template, broker.url)
    yield made
    for site in made.sites.values():
        site.close()


@pytest.mark.timeout(600)
def test_a_good_baseline_goes_to_all_a_bad_one_comes_back_a_forged_one_is_refused(fleet):
    before = fleet.active()
    assert len(set(before.values())) == 1
    status = fleet.run("status", "--json")
    assert set(json.loads(status.stdout)) == set(AGENTS), status.stderr
    assert fleet.run("doctor").returncode == 0

    hiss = 0.1 * np.random.default_rng(0).standard_normal(NORMAL_S * RATE)  # learnt beside something else
    bad, _ = fleet.packed("bad", hiss)
    done = fleet.run("promote", bad, "--watch", "30s")
    assert done.returncode == 1
    assert "rolled back" in done.stderr
    assert "raised an alarm" in done.stderr or "signal chain" in done.stderr, done.stderr
    assert "stage 2" not in done.stdout, "the rest never heard of it"
    assert fleet.active() == before

    good, version = fleet.packed("good", machine_sound(NORMAL_S, seed=0))
    done = fleet.run("promote", good, "--watch", "6s", "--first", "30")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "stage 2: hall-2, hall-3" in done.stdout
    assert fleet.active() == dict.fromkeys(AGENTS, version)

    forged = fleet.folder / "forged.asd"
    asd("fleet", "key", "-o", fleet.folder / "stranger.key")
    done = asd("fleet", "pack-baseline", "-c", fleet.folder / "good" / "agent.yaml", "m", "--key",
               fleet.folder / "stranger.key", "-o", forged)  # fmt: skip
    assert done.returncode == 0, done.stderr
    active = fleet.active()
    done = fleet.run("promote", forged)
    assert done.returncode == 1
    assert "the signature is not that of artefacts.public_key" in done.stderr
    assert fleet.active() == active


@pytest.mark.timeout(600)
def test_an_agent_that_dies_while_it_is_watched_brings_all_back(fleet):
    before = fleet.active()
    good, version = fleet.packed("good", machine_sound(NORMAL_S, seed=0))
    command = [sys.executable, "-m", "asd_agent", "fleet", "promote", "-f", str(fleet.folder / "fleet.yaml"), str(good)]
    rollout = subprocess.Popen([*command, "--watch", "25s", "--first", "30"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    wait_for(lambda: fleet.active()["hall-3"] == version, "the second stage has begun", 120)
    fleet.sites["hall-3"].kill()
    said, errors = rollout.communicate(timeout=200)
    assert rollout.returncode == 1, said
    assert re.search("hall-3(/m)?: no answer", errors), errors  # asked for its status, or just given the baseline
    assert "NOT rolled back: hall-3/m" in errors
    assert {name: baseline for name, baseline in fleet.active().items() if name != "hall-3"} == {
        name: baseline for name, baseline in before.items() if name != "hall-3"
    }
