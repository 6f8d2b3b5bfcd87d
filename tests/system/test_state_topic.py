"""The operating state from an MQTT topic: learnt by name, refused when new, confirmed by one request."""

from __future__ import annotations

import json

import pytest
from plc import plc, wait

from asd_agent.service.control import ask

pytestmark = pytest.mark.system
JUDGED = ("normal", "anomalous")


def test_states_are_told_learnt_and_confirmed(tmp_path):
    with plc(tmp_path, hop_s=0.5, operating={"topic": "plc/m/state", "settle_s": 0.2}) as told:
        client, of_machine, of_window, answers = told.client, told.status, told.score, []
        client.on_message = lambda _client, _data, message: answers.append(json.loads(message.payload))
        client.subscribe("asd/t/response/#", 1)
        assert "no operating state is reported" in str(of_machine("health"))
        client.publish("plc/m/state", "pumping", qos=1, retain=True)
        wait(lambda: of_machine("reported_operating") == "pumping")
        ask(told.settings, "calibrate", machine="m", duration_s=6.0, promote=True)
        wait(lambda: ask(told.settings, "calibration", machine="m")["phase"] == "done")
        wait(lambda: of_window("state") in JUDGED and of_window("operating") == "pumping")

        client.publish("plc/m/state", '{"state": "purging"}', qos=1, retain=True)
        wait(lambda: of_window("state") == "not_assessable" and "'purging' is not in" in of_window("reason"))
        wait(lambda: "new operating state 'purging' since" in of_window("unknown_state"))
        client.publish("asd/t/request/extend", json.dumps({"machine": "m", "transaction": 7}), qos=1)
        answer = wait(lambda: answers and answers[-1])
        assert (answer["status"], answer["transaction"]) == ("ok", 7)
        assert "the state 'purging'" in answer["data"]
        wait(lambda: of_window("operating") == "purging" and of_window("state") in JUDGED)
        assert of_window("unknown_state") == ""
