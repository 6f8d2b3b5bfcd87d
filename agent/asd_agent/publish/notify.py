"""Hooks: a command, a webhook or a plug-in is told of alarms and of failing signal chains, at least once each.

What they are told waits in the outbox, through restarts too.

Each hook has a thread and a queue of its own, so that one that fails or hangs holds up nothing but itself.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec
import structlog

from asd_agent import __version__, config
from asd_agent.config import plugins
from asd_agent.errors import PublishError, StoreError, UsageError
from asd_agent.publish import payloads
from asd_agent.store import HOOK_TOPIC, Message, Outbox

log = structlog.get_logger(__name__)

FIRST_RETRY_S, LAST_RETRY_S = 2.0, 300.0
GIVE_UP_S = 86_400.0  # after the first attempt in vain: yesterday's alarm wakes nobody
LOOK_S = 5.0  # what had to wait for the disk is found without being woken
STOP_S = 2.0


class Plugin(Protocol):
    """See asd_agent.api.Notifier."""

    def notify(self, payload: payloads.Event | payloads.Health) -> None: ...

    def close(self) -> None: ...


class Hooks:
    """All hooks of the configuration. `notices` and `wake` may be called from any thread and never block."""

    def __init__(self, hooks: Sequence[config.Hook], outbox: Callable[[str], Outbox]) -> None:
        """`outbox` opens the queue of a hook by its topic. Raises UsageError for a plug-in that cannot be used."""
        self._workers = [_Worker(hook, outbox(topic), topic) for hook in hooks for topic in [_topic(hook)]]

    @property
    def topics(self) -> list[str]:
        """Of the queues."""
        return [worker.topic for worker in self._workers]

    def start(self) -> None:
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()

    def wake(self) -> None:
        for worker in self._workers:
            worker.wake()

    def notices(self, payload: payloads.Event | payloads.Health) -> list[Message]:
        """For the outbox: one message for each hook that wants to know of it."""
        occasion = payload.event_type.value if isinstance(payload, payloads.Event) else f"chain_{payload.status}"
        body = payloads.encode(payload)
        return [Message(topic=w.topic, payload=body) for w in self._workers if occasion in w.hook.on]


def deliver(hook: config.Hook, body: bytes, plugin: Plugin | None = None) -> None:
    """Run the command, post to the webhook or call the plug-in. Raises PublishError, one line, when it did not work."""
    if hook.command is not None:
        _run(hook.command, body, hook.timeout_s)
    elif hook.webhook is not None:
        _post(hook.webhook, hook.headers, body, hook.timeout_s)
    elif plugin is not None:
        _call(plugin, str(hook.plugin), body)


def _run(command: Sequence[str], body: bytes, timeout_s: float) -> None:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that its children can be ended with it
        )
    except OSError as exc:
        raise PublishError(f"notify command {command[0]}: {exc.strerror or exc}") from exc
    try:
        _, errors = process.communicate(body, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise PublishError(f"notify command {command[0]}: not done within {timeout_s:g} s, killed") from None
    if process.returncode:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise PublishError(f"notify command {command[0]}: exit {process.returncode}" + (f": {last}" if last else ""))


def _post(url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> None:
    """Errors never show the URL's path or query: for most services they are the secret."""
    standard = {"Content-Type": "application/json", "User-Agent": f"asd-agent/{__version__}"}
    request = urllib.request.Request(url, body, {**standard, **headers}, method="POST")
    where = f"webhook {request.type}://{request.host}"
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):
            return
    except urllib.error.HTTPError as exc:
        raise PublishError(f"{where}: answers {exc.code} {exc.reason}") from None
    except urllib.error.URLError as exc:
        raise PublishError(f"{where}: {exc.reason}") from None
    except (OSError, ValueError) as exc:  # a time-out while reading, a broken answer
        raise PublishError(f"{where}: {type(exc).__name__}: {exc}") from None


def _call(plugin: Plugin, name: str, body: bytes) -> None:
    try:
        payload = payloads.decode(body)
        assert isinstance(payload, payloads.Event | payloads.Health)
        plugin.notify(payload)
    except Exception as exc:
        raise PublishError(f"notify plug-in {name}: {exc!r}") from exc


def _plugin(hook: config.Hook) -> Plugin | None:
    if hook.plugin is None:
        return None
    factory = plugins.load("asd_agent.notifiers", hook.plugin)
    try:
        made: Plugin = factory(**hook.options)
    except Exception as exc:
        raise UsageError(f"notify: plug-in {hook.plugin}: {exc!r}") from exc
    return made


def _topic(hook: config.Hook) -> str:
    """The same after a restart and wherever the hook stands in the configuration."""
    target = msgspec.json.encode((hook.command, hook.webhook, hook.plugin, hook.options))
    return HOOK_TOPIC + hashlib.blake2b(target, digest_size=8).hexdigest()


class _Worker:
    """One hook: the oldest notice first, again and again until it works or is a day old."""

    def __init__(self, hook: config.Hook, outbox: Outbox, topic: str) -> None:
        self.hook, self.topic = hook, topic
        self._outbox, self._plugin = outbox, _plugin(hook)
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._failing_since_s: float | None = None
        self._thread = threading.Thread(target=self._run, name=topic, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait for a command in hand: what is not done stays in the outbox."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(STOP_S)

    def wake(self) -> None:
        self._wake.set()

    def _run(self) -> None:
        delay_s = FIRST_RETRY_S
        while not self._stopping.is_set():
            try:
                self._work()
                delay_s = FIRST_RETRY_S
                self._wake.wait(LOOK_S)
                self._wake.clear()
            except (PublishError, StoreError) as exc:
                log.warning("notification failed, will retry", error=str(exc), retry_s=delay_s)
                self._stopping.wait(delay_s)
                delay_s = min(2 * delay_s, LAST_RETRY_S)
            except Exception:
                log.error("notification failed", exc_info=True)
                self._stopping.wait(LAST_RETRY_S)
        if self._plugin is not None:
            self._plugin.close()

    def _work(self) -> None:
        while not self._stopping.is_set() and (items := self._outbox.pending(limit=1)):
            (item,) = items
            try:
                deliver(self.hook, item.message.payload, self._plugin)
            except PublishError as exc:
                self._failing_since_s = self._failing_since_s or time.monotonic()
                if time.monotonic() - self._failing_since_s < GIVE_UP_S:
                    raise
                log.error("notification given up after a day", error=str(exc))
            self._failing_since_s = None
            self._outbox.delete([item.seq])
