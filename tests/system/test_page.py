"""The local page in a real browser: live values, alarms, the player, calibration by clicks, log-in, attacks, phones."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import SPEED, Site, machine
from mosquitto import Collector, Mosquitto, free_port, wait_for
from paho.mqtt.client import MQTTMessage

pytest.importorskip("selenium", reason="needs the extra `dev`")
pytest.importorskip("starlette", reason="needs the extra `web`")
from browser import CHROMIUM, DRIVER, PHONE, Browser, Page, browser
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(None in (CHROMIUM, DRIVER), reason="needs chromium (see tests/system/packages.sh)"),
]
PASSWORD = "correct horse battery"
SOON_S = 1.0  # from a score to the overview
TICKS = 8
WINDOW_S = 1.0


class Watched:
    """A daemon with its broker and its page."""

    def __init__(self, site: Site, broker: Mosquitto, **web: object) -> None:
        self.site, self.broker = site, broker
        listen = f"127.0.0.1:{free_port()}"
        site.configure(
            machine(site.folder),
            mqtt={"url": broker.url},
            agent={"evidence": {"before_s": 6, "after_s": 2}},
            web={"listen": listen, **web},
        )
        self.page = Page(site.path, listen, site.folder / "page.log")
        site.start()
        self.page.start()

    def forget_baseline(self) -> None:
        (self.site.state_dir / "machines" / "m" / "pointers.json").unlink()


@pytest.fixture
def watched(site: Site, broker: Mosquitto) -> Iterator[Watched]:
    made = Watched(site, broker)
    yield made
    made.page.kill()
    assert "Traceback" not in made.page.said


@pytest.fixture
def person(watched: Watched) -> Iterator[Browser]:
    with browser(watched.page.url) as made:
        yield made
        assert made.complaints() == []


def told(message: MQTTMessage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(message.payload)
    return found


def seconds(stamp: str) -> float:
    return dt.datetime.fromisoformat(stamp).timestamp()


def alarm_id(site: Site) -> str:
    return next(event.alarm_id for event in site.events() if event.kind == "raised")


def raise_alarm(site: Site) -> str:
    """An alarm that came and went, with its clip on disk."""
    site.play("faulty")
    site.until(level="danger")
    site.play("normal")
    site.until(level="normal")
    wait_for(lambda: any((site.state_dir / "evidence" / "m").glob("*.png")), "the clip is on disk", 40.0)
    return alarm_id(site)


def test_a_score_is_on_the_overview_within_a_second(watched, person):
    scores = Collector(watched.broker.port, "asd/+/+/score")
    person.open("/")
    person.run(
        "window.seen = {}; document.addEventListener('told', (e) => "
        "e.detail.cards.forEach((c) => { window.seen[c.window] ??= Date.now() / 1000; }))"
    )
    time.sleep(TICKS * 0.6)
    seen = person.run("return window.seen")
    now = time.time() - time.monotonic()  # paho stamps messages with the monotonic clock
    ends = {seconds(told(message)["time"]): now + message.timestamp for message in scores.messages}
    delays = []
    for window, at_s in seen.items():
        end = min(ends, key=lambda end: abs(end - seconds(window) - WINDOW_S))
        if abs(end - seconds(window) - WINDOW_S) < 0.005:  # the page tells of the beginning, the message of the end
            delays.append(at_s - ends[end])
    assert len(delays) >= TICKS // 2
    assert statistics.median(delays) < SOON_S, delays
    scores.close()


def test_an_alarm_appears_without_reload_and_is_acknowledged(watched, person):
    states = Collector(watched.broker.port, "asd/+/+/alarm")
    person.open("/")
    person.until_text("[data-badge]", "Normal")
    person.run("window.kept = true")
    watched.site.play("faulty")
    person.until_text("[data-badge]", "Alarm")
    assert person.run("return window.kept")  # it is the same page still
    assert "kHz" in person.text("[data-f=detail]") or person.text("[data-f=detail]")
    person.until(lambda: person.find("[data-alarm]").get_attribute("href") is not None, "the alarm can be opened")
    person.click("[data-alarm]")
    person.type("[name=by]", "eva")
    person.type("[name=reason]", "on my way")
    person.click("[data-do=ack]")
    wait_for(lambda: bool(states.messages) and told(states.messages[-1])["acknowledged"], "acknowledged over MQTT")
    assert told(states.messages[-1])["acknowledged_by"] == "eva"
    person.until_text("main", "on my way")
    states.close()


def test_marks_are_stored_exported_and_shown_in_what_if(watched, person):
    events = Collector(watched.broker.port, "asd/+/+/event")
    number = raise_alarm(watched.site)
    person.open(f"/machines/m/alarms/{number}")
    person.click("[data-mark=fault]")
    wait_for(lambda: any(told(m)["event_type"] == "marked_fault" for m in events.messages), "the mark goes out")
    assert "marked_fault" in watched.site.kinds()
    person.until_text(".head", "it was a fault")
    person.open("/machines/m/whatif")
    person.until_text("tbody", "a fault")
    events.close()


def test_from_nothing_to_active_by_clicks_and_then_the_player(site, broker):
    (site.state_dir / "machines" / "m" / "pointers.json").unlink()
    watched = Watched(site, broker)
    with browser(watched.page.url) as person:
        person.open("/")
        person.until_text("[data-badge]", "Not calibrated")
        person.open("/machines/m/calibrate")
        person.click("select[name=duration] option[value='60']")
        person.click("#start button")
        person.until_text("#running", "windows")
        person.until(lambda: person.has("[data-verb=promote]"), "a candidate is there", 60 / SPEED + 60)
        assert person.text("[data-verdict]")
        person.click("[data-verb=promote] button")
        person.until_text("table", "active")
        site.until(state="normal")

        number = raise_alarm(site)
        person.open(f"/machines/m/alarms/{number}")
        person.until_text("[data-verdict]", "to the last bit", 60.0)
        for side in ("alarm", "normal"):
            person.click(f"[data-play={side}]")
            assert person.find("#player").get_attribute("data-playing") == side
            before = person.text(f"[data-side={side}] [data-time]")
            clock = f"[data-side={side}] [data-time]"
            person.until(lambda c=clock, b=before: person.text(c) != b, f"{side} plays")
        person.click("[data-switch]")
        assert person.find("#player").get_attribute("data-playing") == "alarm"
        painted = person.run(
            "const c = document.querySelector('[data-side=normal] canvas');"
            "return new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
        )
        assert painted > 50  # a spectrogram has many colours
        assert person.complaints() == []
    watched.page.kill()


def test_live_sound_shows_level_and_spectrogram_but_is_not_heard_unless_allowed(watched, person):
    person.open("/machines/m")
    assert not person.has("#listen")
    assert "privacy" in person.text("#livepanel")
    person.click("#look")
    person.until(lambda: float(person.find(".meter").get_attribute("aria-valuenow")) > -60, "the level is shown")
    refused = person.run(
        "return new Promise((done) => { const s = new EventSource('/live/m?sound=1');"
        "s.onmessage = (m) => { s.close(); done(m.data); }; })"
    )
    assert "privacy" in refused
    with pytest.raises(Exception, match="privacy"):
        watched.site.ask("live", machine="m", sound=True)


def test_what_if_answers_the_sliders(watched, person):
    raise_alarm(watched.site)
    person.open("/machines/m/whatif")
    person.until_text("[data-words]", "Then 1 alarm, with these settings 1 alarm", 40.0)
    person.run(
        "const f = document.getElementById('whatif'); f.elements.n.value = 30; f.elements.k.value = 30;"
        "f.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    person.until_text("[data-words]", "with these settings 0 alarms", 40.0)


def test_the_plot_zooms(watched, person):
    raise_alarm(watched.site)
    person.open("/machines/m")
    person.until_text("#summary", "1 alarm")
    wide = person.run("return window.describe().view")
    over = person.find(".u-over")
    person.run("arguments[0].scrollIntoView({block: 'center'})", over)
    drag = ActionChains(person.driver).move_to_element_with_offset(over, -100, 0).click_and_hold()
    drag.move_by_offset(120, 0).move_by_offset(80, 0).release().perform()
    person.until(lambda: person.find("[data-back]").is_enabled(), "it has zoomed")
    assert person.run("return window.describe().view") != wide


@pytest.fixture
def guarded(site: Site, broker: Mosquitto) -> Iterator[Watched]:
    made = Watched(site, broker, hosts=["localhost"])
    for name, role in (("olga", "operator"), ("victor", "viewer")):
        done = site.cli("web", "--set-password", name, "--role", role, input=f"{PASSWORD}\n")
        assert done.returncode == 0, done.stderr
    yield made
    made.page.kill()


def test_roles(guarded):
    assert "said once" in guarded.page.said  # the first password
    assert PASSWORD not in guarded.page.said
    number = raise_alarm(guarded.site)
    path = f"/machines/m/alarms/{number}"
    with browser(guarded.page.url) as person:
        person.open(path)
        assert person.has("[name=password]")
        for name, operator in (("victor", False), ("olga", True)):
            person.open(path)
            person.type("[name=name]", name)
            person.type("[name=password]", PASSWORD)
            person.click("form button")
            person.until_text(".user", name)
            assert person.driver.current_url.endswith(path)
            assert person.has("#act") is operator
            person.click("[data-logout]")
            person.until(lambda: person.has("[name=password]"), "logged out")


ATTACK = """<!doctype html><title>evil</title><form method=post action="{url}/api/v1/machines/m/out_of_service"
enctype="text/plain"><input name='{{"on":true,"x":"' value='"}}'></form>
<script>fetch("{url}/api/v1/machines/m/out_of_service", {{method: "POST", mode: "no-cors", credentials: "include",
body: "{{}}"}}).finally(() => document.forms[0].submit())</script>"""


@pytest.mark.parametrize("password", [False, True])
def test_another_sites_page_changes_nothing(site, broker, password, tmp_path):
    """The person is logged in, and opens a page of somebody else that sends requests to ours."""
    watched = Watched(site, broker, **({"hosts": ["localhost"]} if password else {}))
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "index.html").write_text(ATTACK.format(url=watched.page.url))
    with _serve(tmp_path / "evil") as port, browser(watched.page.url) as person:
        if password:
            assert site.cli("web", "--set-password", "olga", input=f"{PASSWORD}\n").returncode == 0
            person.open("/login")
            person.type("[name=name]", "olga")
            person.type("[name=password]", PASSWORD)
            person.click("form button")
            person.until_text(".user", "olga")
        person.driver.get(f"http://127.0.0.1:{port}/")
        person.until(lambda: watched.page.url in person.driver.current_url, "the form was sent")
        assert "another site" in person.text("body")
        site.more_windows(2)
        assert not site.status()["alarm"]["out_of_service"]
    watched.page.kill()


class _serve:  # noqa: N801 - a context
    def __init__(self, folder: Path) -> None:
        def handler(*args: object) -> http.server.SimpleHTTPRequestHandler:
            return http.server.SimpleHTTPRequestHandler(*args, directory=str(folder))

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> int:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return int(self._server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_scrolls_only_down_and_axe_finds_nothing_serious(watched, dark):
    import axe_core_python

    axe = Path(axe_core_python.__file__).with_name("axe.min.js").read_text()
    number = raise_alarm(watched.site)
    pages = ["/", "/machines/m", "/alarms", f"/machines/m/alarms/{number}", "/machines/m/calibrate",
             "/machines/m/whatif", "/login"]  # fmt: skip
    found = []
    with browser(watched.page.url, PHONE, dark=dark) as person:
        for path in pages:
            person.open(path)
            person.settled(1.0)
            assert person.overflow() <= 0, path
            person.run(axe)
            done = person.driver.execute_async_script("axe.run().then(arguments[0])")
            found += [
                (path, v["id"], [n["html"][:120] for n in v["nodes"]][:3])
                for v in done["violations"]
                if v["impact"] in ("serious", "critical")
            ]
    assert found == []


def test_the_keyboard_reaches_everything(watched, person):
    """Tab goes through links and buttons in their order, and each of them can be seen to have the focus."""
    person.open("/")
    person.until_text("[data-badge]", "Normal")
    reached = []
    for _ in range(6):
        person.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(person.run("return document.activeElement.textContent.trim()"))
    assert reached[0] == "Skip to the content"
    assert {"Machines", "Alarms"} <= set(reached)
    assert person.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_the_page_may_die_as_often_as_it_likes(watched):
    """Killed again and again: the daemon goes on, no window and no event is lost."""
    before = watched.site.status()
    for _ in range(5):
        watched.page.kill()
        watched.page.start()
    after = watched.site.status()
    assert after["health"]["windows_scored"] > before["health"]["windows_scored"]
    assert (after["health"]["windows_dropped"], watched.site.ask("status")["sink"]["scores_dropped"]) == (0, 0)
