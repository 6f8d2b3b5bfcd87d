"""What the pages say, from a real store: cards, series, alarms with their evidence, metrics, the first page's size."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from asd_agent import config
from asd_agent.baseline import Baseline
from asd_agent.publish import Messages
from asd_agent.publish.payloads import Alarm, Health, Score
from asd_agent.types import AlarmState, ChainStatus, Level, State, rfc3339
from listening import FAULT, calibrated, listening, sound
from store_cases import normal_window

pytest.importorskip("starlette", reason="needs the extra `web`")
from starlette.testclient import TestClient

from asd_agent.service.status import AgentStatus, MachineStatus, SinkStatus
from asd_agent.store import Reader
from asd_agent.web.app import make_app
from asd_agent.web.card import absent, card
from asd_agent.web.metrics import exposition
from asd_agent.web.security.users import Users
from asd_agent.web.series import Limits, series
from asd_agent.web.site import Site
from asd_agent.web.spark import spark

MACHINE = config.Machine(
    id="pump-1", source=config.SimulatedSource(), window_s=1.0, hop_s=0.5, alarm=config.Alarm(window_votes="3/5")
)
MESSAGES = Messages("hall-1", "asd", lambda: True)
FIRST_PAGE_BYTES = 150_000  # gzipped, all of it


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return calibrated(MACHINE, sound(30))


@pytest.fixture(scope="module")
def heard(baseline: Baseline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory with one alarm and its clip."""
    folder = tmp_path_factory.mktemp("heard")
    with listening(folder, MACHINE, baseline, time.time() - 60.0) as item:
        item.hear(sound(6, seed=1))
        item.hear(sound(4, FAULT, seed=2))
        item.hear(sound(14, seed=3))
        item.store.flush()
    return folder


@pytest.fixture(scope="module")
def browser(heard: Path) -> TestClient:
    settings = config.Config(
        agent=config.Agent(id="hall-1", state_dir=str(heard)), machines=[MACHINE], web=config.Web()
    )
    path = heard / "agent.yaml"
    path.write_bytes(msgspec.yaml.encode(settings))
    return TestClient(make_app(Site(settings, str(path), Users(heard / "users.json"))), "http://127.0.0.1:8070")


def health_of(status: str = "good", reasons: tuple[str, ...] = (), **more: object) -> Health:
    fields = {"source_available": True, "baseline": "20260101T000000Z", "windows_scored": 9, "level_dbfs": -20.0}
    return MESSAGES.health("pump-1", status=ChainStatus(status), reasons=reasons, **fields | more)


def score_of(**changes: object) -> Score:
    score = MESSAGES.score("pump-1", normal_window(9, np.random.default_rng(1)), score_limit=2.0)
    return msgspec.structs.replace(score, **changes)


def alarm_of(**fields: object) -> Alarm:
    return MESSAGES.alarm("pump-1", AlarmState(**{"condition": State.NORMAL, "mode": State.NORMAL} | fields))


def status(**changes: object) -> MachineStatus:
    good = MachineStatus(
        machine="pump-1", alarm=alarm_of(), health=health_of(), score=score_of(), reported_operating="",
        reported_shaft_hz=None, transients_last_hour=0, shadow=None,
    )  # fmt: skip
    return msgspec.structs.replace(good, **changes)


def test_only_a_good_machine_on_a_good_chain_is_green():
    assert card(MACHINE, status()).tone == "good"
    old = "2026-01-01T00:00:00.000Z"
    for changes in (
        {"health": health_of(source_available=False)},
        {"health": health_of(baseline="")},
        {"health": health_of(status="failure", reasons=("silence in 7 of the last 12 windows",))},
        {"health": health_of(status="out_of_specification")},
        {"health": health_of(status="maintenance_required")},
        {"health": health_of(status="function_check")},
        {"score": score_of(state=State.LEARNING)},
        {"score": score_of(state=State.NOT_ASSESSABLE)},
        {"score": score_of(state=State.OFF)},
        {"score": score_of(state=State.ANOMALOUS)},
        {"score": score_of(unknown_state="new operating state since 10:42")},
        {"score": None},
        {"health": health_of(last_window_end=old)},
        {"alarm": alarm_of(level=Level.ALERT)},
        {"alarm": alarm_of(level=Level.ALERT, latched=True)},
        {"alarm": alarm_of(out_of_service=True)},
    ):
        assert card(MACHINE, status(**changes)).tone != "good", changes
    assert absent(MACHINE, "the agent is not running").tone == "bad"


def test_an_alarm_outranks_a_chain_that_wants_attention():
    found = card(MACHINE, status(alarm=alarm_of(level=Level.DANGER, reason="hum")))
    assert (found.tone, found.headline, found.detail) == ("bad", "Alarm: danger", "hum")


def test_a_series_keeps_the_peak_whatever_the_number_of_points(heard):
    reader, limits, now = Reader(heard), Limits(heard), time.time()
    fine = series(reader, limits, MACHINE, now - 120, now, 2000)
    highest = max(p for p in fine.peak if p is not None)
    limit = next(x for x in fine.score_limit if x is not None)
    assert highest > limit > 0
    for points in (1, 7, 100):
        found = series(reader, limits, MACHINE, now - 120, now, points)
        assert len(found.utc_s) <= points
        assert max(p for p in found.peak if p is not None) == highest
        assert found.windows == fine.windows
    assert [band.name for band in fine.bands] == ["running"]


def test_a_spark_stays_in_its_frame(heard):
    now = time.time()
    found = spark(series(Reader(heard), Limits(heard), MACHINE, now - 120, now, 120))
    places = [tuple(map(float, pair)) for pair in re.findall(r"[ML]([\d.]+) ([\d.]+)", found.path)]
    assert len(places) > 10
    assert all(0 <= x <= 240 and 0 <= y <= 48 for x, y in places)
    assert found.limit is not None
    assert "limit" in found.words


def test_without_a_daemon_the_overview_says_so(browser):
    text = browser.get("/").text
    assert "The agent is not running" in text
    assert "Not listening" in text
    assert "badge good" not in text


def test_the_pages_open(browser):
    for path in ("/", "/alarms", "/machines/pump-1"):
        assert browser.get(path).status_code == 200, path
    missing = browser.get("/machines/other", headers={"accept": "text/html"})
    assert missing.status_code == 400
    assert "no machine" in missing.text


def alarm_id(browser: TestClient) -> str:
    found = browser.get("/api/v1/machines/pump-1/alarms").json()
    assert len(found) == 1
    return str(found[0]["alarm_id"])


def test_an_alarm_with_its_evidence(browser, heard):
    text = browser.get(f"/machines/pump-1/alarms/{alarm_id(browser)}").text
    media = re.search(r"/media/pump-1/[0-9a-f]+", text)
    assert media is not None
    sound_, picture = browser.get(f"{media[0]}/sound"), browser.get(f"{media[0]}/picture")
    clips = list((heard / "evidence" / "pump-1").glob("*.*"))
    assert sound_.content in [path.read_bytes() for path in clips]
    assert sound_.headers["content-type"] in ("audio/flac", "audio/wav")
    assert picture.content.startswith(b"\x89PNG")
    download = browser.get(f"{media[0]}/sidecar?download")
    assert "attachment" in download.headers["content-disposition"]
    assert json.loads(download.content)["schema"].startswith("asd/evidence/")


def test_events_are_those_of_mqtt(browser):
    found = browser.get("/api/v1/events?machine=pump-1").json()
    assert {e["event_type"] for e in found} >= {"raised", "cleared"}
    assert all(e["schema"].startswith("asd/event/") and e["agent"] == "hall-1" for e in found)


def test_replay_in_a_child_agrees_to_the_last_bit(browser, heard):
    event = browser.get("/api/v1/events?machine=pump-1").json()
    raised = next(e for e in event if e["event_type"] == "raised")
    found = browser.get(f"/api/v1/machines/pump-1/events/{raised['id']}/replay").json()
    assert found["agrees"], found
    assert "last bit" in found["verdict"]


@pytest.mark.parametrize(
    "query",
    [
        "since=x",
        "since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
        "since=5",
        "since=2026-01-02T00:00:00",
        "points=x",
    ],
)
def test_a_wrong_query_is_one_line(browser, query):
    answer = browser.get(f"/api/v1/machines/pump-1/scores?{query}")
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]


def test_metrics_are_what_prometheus_reads():
    from prometheus_client.parser import text_string_to_metric_families

    agent = AgentStatus(
        agent="a", version="0", time=rfc3339(0.0), time_synced=True, uptime_s=5.0,
        sink=SinkStatus(mqtt=None, outbox=3, scores_dropped=0, findings=()), machines=(status(),),
    )  # fmt: skip
    families = {f.name: f for f in text_string_to_metric_families(exposition(agent, 2).decode())}
    assert families["asd_outbox_messages"].samples[0].value == 3
    states = {s.labels["state"]: s.value for s in families["asd_machine_state"].samples}
    assert states["normal"] == 1
    assert sum(states.values()) == 1
    assert families["asd_machine_alarm_level"].samples[0].value == 0
    unknown = msgspec.structs.replace(agent, machines=(status(alarm=alarm_of(mode=State.LEARNING)),))
    families = {f.name: f for f in text_string_to_metric_families(exposition(unknown, 2).decode())}
    assert families["asd_machine_alarm_level"].samples == []  # nobody knows: 0 would say that all is well
    assert next(f for f in text_string_to_metric_families(exposition(None, 0).decode())).samples[0].value == 0


@pytest.mark.parametrize("path", ["/", "/machines/pump-1"])
def test_the_first_page_is_small(browser, path):
    """Page, style, scripts and what those import."""
    seen: dict[str, bytes] = {}
    waiting = [path]
    while waiting:
        address = waiting.pop()
        if address in seen:
            continue
        answer = browser.get(address)
        assert answer.status_code == 200, address
        seen[address] = answer.content
        if address == path:
            waiting += re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text)
        elif address.endswith(".js"):
            folder = address.rpartition("/")[0]
            waiting += [f"{folder}/{name}" for name in re.findall(r'from "\./([^"]+)"', answer.text)]
    assert any(address.endswith("page.js") for address in seen)
    assert sum(len(gzip.compress(content)) for content in seen.values()) < FIRST_PAGE_BYTES
