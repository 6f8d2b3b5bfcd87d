"""The outbox: first in, first out; only what was acknowledged goes; a retained message replaces its older self."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asd_agent.errors import StoreError
from asd_agent.store import Message, Store

topics = st.sampled_from(["a", "b", "c"])


class OutboxMachine(RuleBasedStateMachine):
    """Against a list of (seq, message) in memory."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder)
        self.model: list[tuple[int, Message]] = []
        self.retained: dict[str, Message] = {}
        self.seq = 0
        self.count = 0

    @rule(chosen=st.lists(st.tuples(topics, st.booleans()), max_size=4))
    def put(self, chosen: list[tuple[str, bool]]) -> None:
        messages = []
        for topic, retain in chosen:
            self.count += 1
            message = Message(topic=topic, payload=b"%d" % self.count, retain=retain)
            messages.append(message)
            if retain:
                self.model = [(s, m) for s, m in self.model if not (m.retain and m.topic == topic)]
                self.retained[topic] = message
            self.seq += 1
            self.model.append((self.seq, message))
        self.store.outbox.put(messages)

    @rule(topic=topics)
    def forget(self, topic: str) -> None:
        message = Message(topic=topic, payload=b"", retain=True)
        self.model = [(s, m) for s, m in self.model if not (m.retain and m.topic == topic)]
        self.retained.pop(topic, None)
        self.seq += 1
        self.model.append((self.seq, message))
        self.store.outbox.put([message])

    @rule(which=st.sets(st.integers(0, 12)), unknown=st.booleans())
    def acknowledge(self, which: set[int], unknown: bool) -> None:
        seqs = [seq for i, (seq, _) in enumerate(self.model) if i in which]
        self.store.outbox.delete([*seqs, 10_000_000] if unknown else seqs)
        self.model = [(s, m) for s, m in self.model if s not in seqs]

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Store(self.folder)

    @rule(after=st.integers(0, 30), limit=st.integers(1, 5))
    def ask(self, after: int, limit: int) -> None:
        wanted = [(s, m) for s, m in self.model if s > after][:limit]
        assert [(i.seq, i.message) for i in self.store.outbox.pending(after, limit)] == wanted

    @invariant()
    def all_is_there(self) -> None:
        outbox = self.store.outbox
        assert [(i.seq, i.message) for i in outbox.pending(limit=10_000)] == self.model
        assert outbox.depth() == len(self.model)
        assert outbox.retained() == [self.retained[t] for t in sorted(self.retained)]

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


OutboxMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestOutbox = OutboxMachine.TestCase


def test_the_listener_hears_of_each_commit(tmp_path: Path) -> None:
    heard = []
    with Store(tmp_path) as store:
        store.outbox.listen(lambda: heard.append(store.outbox.depth()))
        store.outbox.put([Message(topic="a", payload=b"1")])
        store.outbox.put([Message(topic="a", payload=b"2")])
        assert heard == [1, 2]
        store.outbox.listen(None)
        store.outbox.put([Message(topic="a", payload=b"3")])
        assert heard == [1, 2]


def test_what_cannot_be_deleted_now_is_not_sent_again_and_deleted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path) as store:
        store.outbox.put([Message(topic="a", payload=b"%d" % i) for i in range(3)])

        def refuse(*args: object, **kwargs: object) -> None:
            raise StoreError("disk full")

        monkeypatch.setattr(store._database, "write", refuse)
        store.outbox.delete([1, 2])
        assert [item.seq for item in store.outbox.pending()] == [3]
        assert store.outbox.depth() == 1
        monkeypatch.undo()
        store.outbox.delete([])
    with Store(tmp_path) as store:
        assert [item.seq for item in store.outbox.pending()] == [3]
