"""Hooks: told once it works, retried from the disk, limited in time, each by itself."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from asd_agent import config
from asd_agent.errors import PublishError
from asd_agent.publish import Messages, notify, payloads
from asd_agent.publish.notify import Hooks, deliver
from asd_agent.store import Store
from asd_agent.types import EventKind
from store_cases import alarm_event

MESSAGES = Messages("hall-1", "asd", lambda: True)
APPEND = "import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read() + b'\\n')"


def event(kind: EventKind = EventKind.RAISED, name: str = "e1") -> payloads.Event:
    payload = payloads.decode(MESSAGES.of(MESSAGES.event(alarm_event(name, kind=kind))).payload)
    assert isinstance(payload, payloads.Event)
    return payload


def appending(path: Path, **more: Any) -> config.Hook:
    return config.Hook(command=[sys.executable, "-c", APPEND, str(path)], **more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "state") as opened:
        yield opened


@pytest.fixture
def notifying(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Hooks]]:
    monkeypatch.setattr(notify, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(notify, "LAST_RETRY_S", 0.1)
    started = []

    def start(*hooks: config.Hook) -> Hooks:
        notifier = Hooks(hooks, store.hook_queue)
        started.append(notifier)
        notifier.start()
        return notifier

    yield start
    for notifier in started:
        notifier.stop()


class Web(HTTPServer):
    """Answers with the given codes, then 200; keeps what was posted."""

    def __init__(self, *codes: int) -> None:
        self.codes, self.bodies, self.agents = list(codes), list[bytes](), list[str]()
        web = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                web.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                web.agents.append(self.headers["Authorization"] or "")
                self.send_response(web.codes.pop(0) if web.codes else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret-path"


def test_a_command_gets_the_event_as_it_goes_over_mqtt(tmp_path: Path, store: Store, notifying: Any) -> None:
    notifier = notifying(appending(tmp_path / "out"))
    store.outbox.put(notifier.notices(event()))
    notifier.wake()
    wait_for(lambda: len(lines(tmp_path / "out")) == 1)
    assert lines(tmp_path / "out")[0] == json.loads(payloads.encode(event()))
    wait_for(lambda: store.hook_queue(notifier.notices(event())[0].topic).depth() == 0)


def test_a_webhook_is_posted_to_until_it_answers_well(store: Store, notifying: Any) -> None:
    web = Web(500, 503)
    notifier = notifying(config.Hook(webhook=web.url, headers={"Authorization": "Bearer x"}))
    store.outbox.put(notifier.notices(event()))
    notifier.wake()
    wait_for(lambda: len(web.bodies) == 3)
    assert {json.loads(body)["id"] for body in web.bodies} == {"e1"}
    assert set(web.agents) == {"Bearer x"}
    web.shutdown()


def test_notices_outlive_a_restart_and_never_reach_the_broker(tmp_path: Path, store: Store, notifying: Any) -> None:
    hook = appending(tmp_path / "out")
    store.outbox.put(Hooks([hook], store.hook_queue).notices(event()))
    assert store.outbox.pending() == []
    assert store.outbox.depth() == 0
    notifying(hook)
    wait_for(lambda: len(lines(tmp_path / "out")) == 1)


def test_a_hook_that_fails_holds_up_only_itself_and_keeps_the_order(
    tmp_path: Path, store: Store, notifying: Any
) -> None:
    gate = tmp_path / "gate"
    guarded = "import os, sys; os.path.exists(sys.argv[2]) or sys.exit(3)\n" + APPEND
    bad = config.Hook(command=[sys.executable, "-c", guarded, str(tmp_path / "bad"), str(gate)])
    notifier = notifying(bad, appending(tmp_path / "good"))
    for name in ("e1", "e2", "e3"):
        store.outbox.put(notifier.notices(event(name=name)))
    notifier.wake()
    wait_for(lambda: [e["id"] for e in lines(tmp_path / "good")] == ["e1", "e2", "e3"])
    assert not (tmp_path / "bad").exists()
    gate.touch()
    wait_for(lambda: [e["id"] for e in lines(tmp_path / "bad")] == ["e1", "e2", "e3"])


class Told:
    """A plug-in that fails at first."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.seen, self.closed = failures, list[str](), False

    def notify(self, payload: payloads.Event | payloads.Health) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("no network")
        self.seen.append(payload.id)

    def close(self) -> None:
        self.closed = True


def test_a_plug_in_is_told_in_order_until_it_has_taken_each(
    store: Store, notifying: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(failures=3)
    monkeypatch.setattr("asd_agent.config.plugins.load", lambda group, name: lambda **options: told)
    notifier = notifying(config.Hook(plugin="told"))
    for name in ("e1", "e2"):
        store.outbox.put(notifier.notices(event(name=name)))
    notifier.wake()
    wait_for(lambda: told.seen == ["e1", "e2"])
    notifier.stop()
    assert told.closed


def test_what_waits_for_a_hook_that_is_gone_is_dropped(store: Store) -> None:
    gone, kept = config.Hook(command=["false"]), config.Hook(webhook="http://127.0.0.1:9/")
    both = Hooks([gone, kept], store.hook_queue)
    store.outbox.put(both.notices(event()))
    store.outbox.put([MESSAGES.of(event())])
    assert store.outbox.keep_hooks(Hooks([kept], store.hook_queue).topics) == 1
    assert [store.hook_queue(topic).depth() for topic in both.topics] == [0, 1]
    assert store.outbox.depth() == 1  # what is for the broker stays
    assert store.outbox.keep_hooks([]) == 1


def test_a_hook_hears_what_it_asked_for(store: Store) -> None:
    notifier = Hooks([config.Hook(command=["true"], on=("raised", "chain_failure"))], store.hook_queue)
    assert len(notifier.notices(event())) == 1
    assert notifier.notices(event(EventKind.CLEARED)) == []
    for status, count in (("failure", 1), ("good", 0)):
        message = MESSAGES.of(MESSAGES.health("m1", status=status, reasons=(), source_available=False))
        health = payloads.decode(message.payload)
        assert isinstance(health, payloads.Health)
        assert len(notifier.notices(health)) == count


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {pid_file}; wait"
    with pytest.raises(PublishError, match=r"not done within 0\.5 s, killed"):
        deliver(config.Hook(command=["sh", "-c", script], timeout_s=0.5), b"{}")
    child = Path("/proc") / pid_file.read_text().strip() / "stat"
    wait_for(lambda: not child.exists() or child.read_text().split()[2] in "ZX")


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ({"command": ["/nowhere/x"]}, "notify command /nowhere/x: No such file"),
        ({"command": ["sh", "-c", "echo broken >&2; exit 4"]}, "exit 4: broken"),
        ({"webhook": "http://127.0.0.1:1/hidden"}, "webhook http://127.0.0.1:1: .*refused"),
    ],
)
def test_what_does_not_work_is_one_line_without_the_secret(hook: dict[str, Any], words: str) -> None:
    with pytest.raises(PublishError, match=words) as caught:
        deliver(config.Hook(**hook), b"{}")
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_answer_that_never_comes_ends_in_time() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(PublishError, match="timed out"):
            deliver(config.Hook(webhook=url, timeout_s=0.3), b"{}")


@pytest.mark.parametrize("hook", [{}, {"command": ["x"], "webhook": "https://x"}])
def test_a_hook_is_a_command_a_webhook_or_a_plug_in(hook: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one of command, webhook and plugin"):
        config.Hook(**hook)
