"""The guard in front of the page: hosts, log-in, roles, CSRF, sessions, files, and what leaves the process."""

from __future__ import annotations

import base64
import re
import stat
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asd_agent import config
from asd_agent.errors import StoreError, UsageError

pytest.importorskip("starlette", reason="needs the extra `web`")
from starlette.testclient import TestClient

from asd_agent.web.app import make_app
from asd_agent.web.security.attempts import Attempts
from asd_agent.web.security.hosts import allowed_hosts, is_allowed
from asd_agent.web.security.sessions import IDLE_S, Sessions
from asd_agent.web.security.users import Role, Users
from asd_agent.web.site import Site

PASSWORD = "correct horse battery"
ADDRESS = "http://plant.example"


def settings(folder: Path, **web: object) -> config.Config:
    return config.Config(
        agent=config.Agent(id="a", state_dir=str(folder / "state")),
        machines=[config.Machine(id="m", source=config.SimulatedSource())],
        web=config.Web(**web),
    )


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Users:
    made = Users(tmp_path_factory.mktemp("users") / "own" / "users.json")
    made.set("olga", PASSWORD, Role.OPERATOR)
    made.set("victor", PASSWORD, Role.VIEWER)
    return made


def client(folder: Path, users: Users, base_url: str = ADDRESS, **web: object) -> TestClient:
    web = web or {"listen": "0.0.0.0:8070", "hosts": ["plant.example"]}
    return TestClient(make_app(Site(settings(folder, **web), "agent.yaml", users)), base_url, follow_redirects=False)


def log_in(browser: TestClient, name: str, password: str = PASSWORD) -> int:
    return browser.post("/login", data={"name": name, "password": password, "next": "/alarms"}).status_code


def csrf(browser: TestClient, path: str = "/alarms") -> dict[str, str]:
    found = re.search(r'name="csrf" content="([0-9a-f]+)"', browser.get(path).text)
    assert found is not None
    return {"x-csrf-token": found[1]}


def test_nothing_is_shown_before_the_log_in(tmp_path, users):
    browser = client(tmp_path, users)
    for path in ("/", "/alarms", "/machines/m", "/setup"):
        answer = browser.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=")
    for path in ("/api/v1/status", "/metrics", "/events", "/media/m/x/sound", "/live/m"):
        assert browser.get(path).status_code == 401
    assert browser.get("/healthz").status_code == 503  # no daemon, and nothing else is told
    assert browser.get("/healthz").json() == {"page": "ok", "daemon": "absent"}


def test_log_in_and_out(tmp_path, users):
    browser = client(tmp_path, users)
    answer = browser.post("/login", data={"name": "olga", "password": PASSWORD, "next": "/alarms"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/alarms")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    assert browser.get("/alarms").status_code == 200
    token = browser.cookies["asd_session"]
    assert browser.post("/logout", headers=csrf(browser)).status_code == 204
    browser.cookies.set("asd_session", token)
    assert browser.get("/alarms").status_code == 303


def test_the_cookie_is_secure_under_tls(tmp_path, users):
    browser = client(tmp_path, users, "https://plant.example")
    answer = browser.post("/login", data={"name": "olga", "password": PASSWORD})
    assert "Secure" in answer.headers["set-cookie"]
    assert "strict-transport-security" in answer.headers


@pytest.mark.parametrize("after", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:x"])
def test_the_log_in_leads_to_no_other_site(tmp_path, users, after):
    browser = client(tmp_path, users)
    answer = browser.post("/login", data={"name": "olga", "password": PASSWORD, "next": after})
    assert answer.headers["location"] == "/"


def test_a_viewer_looks_and_changes_nothing(tmp_path, users):
    browser = client(tmp_path, users)
    assert log_in(browser, "victor") == 303
    token = csrf(browser)
    for verb in ("ack", "calibrate", "promote", "mark"):
        answer = browser.post(f"/api/v1/machines/m/{verb}", headers=token, json={})
        assert (answer.status_code, answer.json()) == (403, {"error": "only an operator may do this"})


def test_a_change_needs_a_token_of_the_session_and_our_own_origin(tmp_path, users):
    browser, other = client(tmp_path, users), client(tmp_path, users)
    log_in(browser, "olga")
    log_in(other, "olga")
    good, path = csrf(browser), "/api/v1/machines/m/ack"
    assert browser.post(path, headers=good, json={}).status_code == 503  # it passed; there is no daemon
    assert browser.post(path, json={}).status_code == 403
    assert browser.post(path, headers=csrf(other), json={}).status_code == 403
    for bad in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        assert browser.post(path, headers=good | bad, json={}).status_code == 403
    assert browser.post(path, headers=good | {"origin": ADDRESS, "sec-fetch-site": "same-origin"}).status_code == 503


def test_each_page_has_another_token(tmp_path, users):
    browser = client(tmp_path, users)
    log_in(browser, "olga")
    assert csrf(browser) != csrf(browser)


def test_a_log_in_cannot_be_tried_out(tmp_path, users):
    browser = client(tmp_path, users)
    assert [log_in(browser, "olga", "wrong password") for _ in range(6)] == [403] * 5 + [429]
    assert log_in(browser, "olga") == 429  # neither with the right one


def test_programs_read_with_basic_authentication_and_change_nothing(tmp_path, users):
    browser = client(tmp_path, users)
    header = {"authorization": "Basic " + base64.b64encode(f"olga:{PASSWORD}".encode()).decode()}
    assert browser.get("/metrics", headers=header).status_code == 200
    assert browser.post("/api/v1/machines/m/ack", headers=header, json={}).status_code == 401
    assert browser.get("/metrics", headers={"authorization": "Basic !!!"}).status_code == 401


def test_another_password_ends_the_sessions(tmp_path):
    users = Users(tmp_path / "users.json")
    users.set("olga", PASSWORD, Role.OPERATOR)
    browser = client(tmp_path, users)
    log_in(browser, "olga")
    assert browser.get("/alarms").status_code == 200
    users.set("olga", "another password", Role.OPERATOR)
    assert browser.get("/alarms").status_code == 303


def test_another_sites_name_is_refused(tmp_path, users):
    browser = client(tmp_path, users)
    for host in ("evil.example", "plant.example.evil.example", "", "xplant.example:8070"):
        assert browser.get("/healthz", headers={"host": host}).status_code == 421
    for host in ("plant.example", "PLANT.example:8070", "192.168.1.20", "[fe80::1]:8070", "localhost"):
        assert browser.get("/healthz", headers={"host": host}).status_code == 503


def test_on_this_machine_alone_no_password_is_needed_but_other_sites_stay_out(tmp_path, users):
    browser = client(tmp_path, users, "http://127.0.0.1:8070", listen="127.0.0.1:8070")
    assert browser.get("/alarms").status_code == 200
    assert browser.post("/api/v1/machines/m/ack", json={}).status_code == 403
    assert browser.post("/api/v1/machines/m/ack", headers=csrf(browser), json={}).status_code == 503
    for host in ("evil.example", "192.168.1.20", "plant.example"):
        assert browser.get("/", headers={"host": host}).status_code == 421
    assert browser.get("/", headers={"x-forwarded-for": "10.0.0.1"}).status_code == 403  # a proxy would open it to all


@pytest.mark.parametrize("strips", [True, False])
def test_behind_a_proxy_with_a_prefix(tmp_path, users, strips):
    browser = client(tmp_path, users, listen="127.0.0.1:8070", prefix="/asd", hosts=["plant.example"])
    path = "" if strips else "/asd"
    answer = browser.get(f"{path}/machines/m")
    assert answer.headers["location"] == "/asd/login?next=/machines/m"
    page = browser.get(f"{path}/login").text
    assert 'action="/asd/login"' in page
    style = re.search(r'href="(/asd/static/[^"]+\.css)"', page)
    assert style is not None
    assert browser.get(style[1].removeprefix("/asd") if strips else style[1]).status_code == 200
    answer = browser.post(f"{path}/login", data={"name": "olga", "password": PASSWORD, "next": "/alarms"})
    assert answer.headers["location"] == "/asd/alarms"
    assert "Path=/asd" in answer.headers["set-cookie"]


def test_scripts_and_frames_of_others_are_forbidden(tmp_path, users):
    browser = client(tmp_path, users, "http://127.0.0.1:8070", listen="127.0.0.1:8070")
    for path in ("/", "/alarms", "/machines/m", "/login", "/nowhere"):
        answer = browser.get(path, headers={"accept": "text/html"})
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son[a-z]+=|\sstyle=", answer.text)


def test_no_request_leads_out_of_the_state_directory(tmp_path, users):
    (tmp_path / "state").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "state" / "link").symlink_to(tmp_path / "secret")
    site = Site(settings(tmp_path), "agent.yaml", users)
    for path in ("../secret", "/etc/passwd", "link", "evidence/../../secret", ""):
        with pytest.raises(StoreError):
            site.file(path)
    browser = client(tmp_path, users, "http://127.0.0.1:8070", listen="127.0.0.1:8070")
    release = site.release
    for path in ("/static/../app.py", f"/static/{release}/../app.py", f"/static/{release}/%2e%2e/app.py",
                 f"/static/{release}/..%2f..%2fapp.py", "/media/m/..%2fsecret/sound", "/media/../x/sound"):  # fmt: skip
        answer = browser.get(path)
        assert answer.status_code >= 400
        assert "secret" not in answer.text


def test_too_much_is_refused(tmp_path, users):
    browser = client(tmp_path, users)
    assert browser.post("/login", content=b"x" * 100_000).status_code == 413


def test_passwords_are_kept_as_digests_that_only_the_page_can_read(users):
    text = users.path.read_text()
    assert PASSWORD not in text
    assert stat.S_IMODE(users.path.stat().st_mode) == 0o600
    assert users.check("olga", PASSWORD) is Role.OPERATOR
    assert users.check("olga", PASSWORD + "x") is None
    assert users.check("nobody", PASSWORD) is None


def test_a_password_that_will_not_do(tmp_path):
    users = Users(tmp_path / "users.json")
    for name, password in (("olga", "short"), ("../olga", PASSWORD), ("", PASSWORD)):
        with pytest.raises(UsageError):
            users.set(name, password, Role.OPERATOR)


def test_the_first_password_is_made_once(tmp_path):
    users = Users(tmp_path / "users.json")
    password = users.first()
    assert password is not None
    assert users.check("operator", password) is Role.OPERATOR
    assert users.first() is None


def test_sessions_end_when_nobody_uses_them():
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    token, session = sessions.begin("olga", Role.OPERATOR)
    now[0] += IDLE_S - 1
    assert sessions.find(token) is session
    now[0] += IDLE_S + 1
    assert sessions.find(token) is None


@hypothesis.settings(deadline=None, max_examples=40)
@given(st.text(max_size=120))
def test_no_invented_token_passes(token):
    _, session = Sessions().begin("olga", Role.OPERATOR)
    assert not session.proves(token)
    assert session.proves(session.csrf())


def test_attempts_are_forgotten_after_a_while():
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    for _ in range(5):
        attempts.failed(("address", "x"))
    assert attempts.wait_s(("address", "x")) > 0
    assert attempts.wait_s(("address", "y")) == 0
    now[0] += 301
    assert attempts.wait_s(("address", "x")) == 0


@hypothesis.settings(deadline=None, max_examples=40)
@given(st.from_regex(r"[a-z0-9.-]{1,40}", fullmatch=True))
def test_only_known_names_and_addresses_are_hosts(name):
    web = config.Web(listen="0.0.0.0:8070", hosts=["plant.example"])
    names = allowed_hosts(web)
    looks_like_address = re.fullmatch(r"[0-9.]+", name) is not None
    assert is_allowed(name, names, web) <= (name in names or looks_like_address)
