from __future__ import annotations

import pytest

from asd_agent import config
from asd_agent.errors import AsdError, StoreError, UsageError
from asd_agent.service.control import ControlServer, DaemonAbsent, ask, socket_path


@pytest.fixture
def settings(tmp_path):
    return config.Config(
        agent=config.Agent(id="a", state_dir=str(tmp_path)),
        machines=[config.Machine(id="m", source=config.SimulatedSource())],
    )


def serve(settings, handler, group=None):
    return ControlServer(socket_path(settings), handler, group)


def test_request_and_answer(settings):
    server = serve(settings, lambda verb, args: [verb, args])
    try:
        assert ask(settings, "status", machine="m") == ["status", {"machine": "m"}]
    finally:
        server.close()
    with pytest.raises(DaemonAbsent, match="not running"):
        ask(settings, "status")


def test_an_error_answer_is_one_line(settings):
    def refuse(verb, args):
        raise UsageError("no such machine")

    server = serve(settings, refuse)
    try:
        with pytest.raises(AsdError, match="no such machine"):
            ask(settings, "ack")
    finally:
        server.close()


def test_only_user_and_group_may_write(settings):
    server = serve(settings, lambda verb, args: None)
    try:
        assert socket_path(settings).stat().st_mode & 0o777 == 0o660
    finally:
        server.close()


def test_a_left_over_socket_file_does_not_stop_the_start(settings):
    socket_path(settings).touch()
    server = serve(settings, lambda verb, args: 1)
    try:
        assert ask(settings, "x") == 1
    finally:
        server.close()


def test_an_unknown_group_is_named(settings):
    with pytest.raises(StoreError, match="no group 'nobody-has-this'"):
        serve(settings, lambda verb, args: None, group="nobody-has-this")
