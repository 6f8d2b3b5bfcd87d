"""Delivery against a broker that loses, refuses and delays: nothing is lost, nothing is deleted unacknowledged."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from asd_agent.publish import delivery as delivery_module
from asd_agent.publish.delivery import Delivery
from asd_agent.store import Message, Store

LIMIT = 20


class DeliveryMachine(RuleBasedStateMachine):
    """Put, send, acknowledge, refuse, reconnect and crash in any order."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder)
        self.delivery = Delivery(self.store.outbox)
        self.mid = 0
        self.count = 0
        self.put_in: list[bytes] = []
        self.under_way: dict[int, bytes] = {}
        self.received: list[bytes] = []  # in the order sent, over all connections
        self.connection: list[bytes] = []  # of this connection
        self.acknowledged: set[bytes] = set()

    def send(self, message: Message) -> int:
        self.mid = self.mid % 65_535 + 1
        self.under_way[self.mid] = message.payload
        self.connection.append(message.payload)
        self.received.append(message.payload)
        return self.mid

    @rule(number=st.integers(1, 40))
    def put(self, number: int) -> None:
        messages = []
        for _ in range(number):
            self.count += 1
            messages.append(Message(topic="t", payload=b"%06d" % self.count))
        self.put_in += [message.payload for message in messages]
        self.store.outbox.put(messages)

    @rule()
    def step(self) -> None:
        self.delivery.step(self.send, LIMIT - len(self.under_way))
        assert len(self.under_way) <= LIMIT

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), accepted=st.booleans() | st.just(True))
    def answer(self, data: st.DataObject, accepted: bool) -> None:
        mid = data.draw(st.sampled_from(sorted(self.under_way)))
        payload = self.under_way.pop(mid)
        if accepted:
            self.acknowledged.add(payload)
        self.delivery.acknowledge(mid, accepted)

    @rule(mid=st.integers(1, 65_535))
    def stray_answer(self, mid: int) -> None:
        if mid not in self.under_way:
            self.delivery.acknowledge(mid, True)

    @rule()
    def reconnect(self) -> None:
        self.under_way.clear()
        self.connection.clear()
        self.delivery.restart()

    @rule()
    def crash(self) -> None:
        self.store.close()
        self.store = Store(self.folder)
        self.delivery = Delivery(self.store.outbox)
        self.under_way.clear()
        self.connection.clear()

    @rule()
    def check(self) -> None:
        waiting = [item.message.payload for item in self.store.outbox.pending(limit=100_000)]
        assert waiting == sorted(waiting)
        assert set(self.put_in) <= self.acknowledged | set(waiting)  # never deleted unacknowledged
        assert self.connection == sorted(set(self.connection))  # in order, each once

    def teardown(self) -> None:
        self.under_way.clear()
        self.delivery.restart()
        self.connection.clear()
        while self.store.outbox.depth():
            self.delivery.step(self.send, LIMIT - len(self.under_way))
            for mid in list(self.under_way):
                self.acknowledged.add(self.under_way.pop(mid))
                self.delivery.acknowledge(mid, True)
        assert set(self.received) == set(self.put_in) == self.acknowledged
        self.store.close()
        shutil.rmtree(self.folder)


DeliveryMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestDelivery = DeliveryMachine.TestCase


def test_what_the_broker_refuses_is_kept_and_sent_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(delivery_module.time, "monotonic", lambda: now[0])
    sent: list[bytes] = []

    def send(message: Message) -> int:
        sent.append(message.payload)
        return len(sent)

    with Store(tmp_path) as store:
        store.outbox.put([Message(topic="t", payload=b"a"), Message(topic="t", payload=b"b")])
        delivery = Delivery(store.outbox)
        delivery.step(send, LIMIT)
        delivery.acknowledge(1, False)
        delivery.acknowledge(2, True)
        delivery.step(send, LIMIT)
        assert delivery.refused
        assert sent == [b"a", b"b"]
        assert store.outbox.depth() == 1
        now[0] += delivery_module.REFUSED_RETRY_S
        delivery.step(send, LIMIT)
        assert sent == [b"a", b"b", b"a"]
        assert not delivery.refused
        now[0] += 50
        assert delivery.stalled_s() == 50
        delivery.acknowledge(3, True)
        assert delivery.stalled_s() == 0
        delivery.step(send, LIMIT)
        assert store.outbox.depth() == 0
        assert delivery.idle
