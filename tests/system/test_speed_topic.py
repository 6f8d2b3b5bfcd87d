"""The shaft's speed from an MQTT topic reaches the mechanism analysis of the running daemon."""

from __future__ import annotations

import pytest
from plc import plc, wait

pytestmark = pytest.mark.system


def test_rpm_is_heard_and_nonsense_is_ignored(tmp_path):
    with plc(tmp_path, hop_s=1, mechanism={"speed_topic": "plc/motor/rpm"}) as told:
        client = told.client
        assert told.status("reported_shaft_hz") is None
        client.publish("plc/motor/rpm", "1494", qos=1, retain=True)
        assert wait(lambda: told.status("reported_shaft_hz")) == pytest.approx(24.9)
        client.publish("plc/motor/rpm", "fast", qos=1).wait_for_publish(10)
        client.publish("plc/motor/rpm", '{"rpm": 2988}', qos=1)
        wait(lambda: told.status("reported_shaft_hz") == pytest.approx(49.8))
