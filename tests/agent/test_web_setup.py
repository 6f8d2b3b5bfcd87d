"""The set-up page: before there is a configuration, and beside one; and what a machine is heard to say just now."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest

from asd_agent import config
from asd_agent.errors import UsageError
from asd_agent.service.live import COLUMNS_PER_S, INTEREST_S, ROWS, LiveSound, check_allowed
from asd_agent.types import Block

pytest.importorskip("starlette", reason="needs the extra `web`")
from starlette.testclient import TestClient

from asd_agent.web.app import make_app
from asd_agent.web.security.users import Users
from asd_agent.web.site import Site

ANSWERS = {"agent": "hall-1", "machine": "pump-1", "source": "simulated", "state_dir": "/tmp/x"}
RATE = 16_000


def made_up(folder: Path) -> config.Config:
    machine = config.Machine(id="machine-1", source=config.SimulatedSource())
    return config.Config(agent=config.Agent(id="a", state_dir=str(folder)), machines=[machine], web=config.Web())


def browser(folder: Path, *, first: bool) -> tuple[TestClient, list[bool]]:
    app = make_app(Site(made_up(folder), str(folder / "agent.yaml"), Users(folder / "users.json"), first=first))
    restarts: list[bool] = []
    app.state.restart = lambda: restarts.append(True)
    return TestClient(app, "http://127.0.0.1:8070"), restarts


def token(client: TestClient) -> dict[str, str]:
    found = re.search(r'name="csrf" content="([0-9a-f]+)"', client.get("/setup").text)
    assert found is not None
    return {"x-csrf-token": found[1]}


def test_the_first_start_writes_a_configuration_that_the_agent_takes(tmp_path):
    client, restarts = browser(tmp_path, first=True)
    assert client.get("/").url.path == "/setup"
    assert client.get("/alarms").status_code == 404  # nothing else is there yet
    answer = client.post("/api/v1/configuration", headers=token(client), json=ANSWERS)
    assert answer.json()["path"] == str(tmp_path / "agent.yaml")
    settings = config.load(tmp_path / "agent.yaml")
    assert (settings.agent.id, settings.machines[0].id) == ("hall-1", "pump-1")
    assert settings.web is not None
    assert restarts == [True]
    again = client.post("/api/v1/configuration", headers=token(client), json=ANSWERS)
    assert again.status_code == 400
    assert "exists already" in again.json()["error"]


@pytest.mark.parametrize("wrong", [{"machine": "no/slash"}, {"broker": "http://x"}, {"channel": "x"}, {"unknown": 1}])
def test_wrong_answers_are_one_line_and_write_nothing(tmp_path, wrong):
    client, restarts = browser(tmp_path, first=True)
    answer = client.post("/api/v1/configuration", headers=token(client), json=ANSWERS | wrong)
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]
    assert not (tmp_path / "agent.yaml").exists()
    assert restarts == []


def test_beside_a_configuration_it_is_only_shown(tmp_path):
    client, _ = browser(tmp_path, first=False)
    answer = client.post("/api/v1/configuration", headers=token(client), json=ANSWERS).json()
    assert "pump-1" in answer["text"]
    assert answer["path"] == ""
    assert not (tmp_path / "agent.yaml").exists()


def test_devices_are_those_of_the_command(tmp_path):
    client, _ = browser(tmp_path, first=True)
    assert isinstance(client.get("/api/v1/devices").json(), list)


def block(samples: np.ndarray) -> Block:
    return Block(samples.astype(np.float32)[:, None], RATE, 0, 0.0, time.monotonic())


def test_live_sound_is_kept_only_while_somebody_asks(monkeypatch):
    live = LiveSound(config.SimulatedSource())
    now = [1000.0]
    monkeypatch.setattr("asd_agent.service.live.time.monotonic", lambda: now[0])
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE) / 2
    live.feed(block(tone))
    assert live.heard(0, False) is None  # nobody had asked before
    live.feed(block(tone))
    heard = live.heard(0, True)
    assert heard is not None
    assert heard.level_dbfs == pytest.approx(-9.0, abs=0.1)
    assert len(heard.columns) == ROWS * COLUMNS_PER_S
    assert heard.pcm is not None
    assert len(heard.pcm) == 2 * RATE
    columns = np.frombuffer(heard.columns, np.uint8).reshape(COLUMNS_PER_S, ROWS)
    hz = np.geomspace(50, RATE / 2, ROWS + 1)
    loudest = int(columns.mean(axis=0).argmax())
    assert hz[loudest] * 0.9 < 1000 < hz[loudest + 1] * 1.1
    assert live.heard(heard.frame, False) is None  # nothing new
    now[0] += INTEREST_S + 1
    live.feed(block(tone))
    assert live.heard(0, False) is None


def test_the_microphone_is_private_unless_the_configuration_says_otherwise(tmp_path):
    settings = made_up(tmp_path)
    check_allowed(settings, sound=False)
    with pytest.raises(UsageError, match="privacy"):
        check_allowed(settings, sound=True)
    allowed = config.Config(agent=settings.agent, machines=settings.machines, web=config.Web(live_sound=True))
    check_allowed(allowed, sound=True)
