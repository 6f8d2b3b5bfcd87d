"""Fixtures of the tests that run a real daemon."""

from __future__ import annotations

import signal

import pytest
from daemons import Site, Template
from mosquitto import BINARY, Mosquitto


@pytest.fixture(scope="session", autouse=True)
def control_c_arrives():
    """A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    return Template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def site(tmp_path, template):
    made = Site(tmp_path, template)
    yield made
    made.close()
    assert not made.log.exists() or "Traceback" not in made.said


@pytest.fixture
def broker(tmp_path):
    if BINARY is None:
        pytest.skip("needs mosquitto (see tests/system/packages.sh)")
    made = Mosquitto(tmp_path / "broker")
    made.start()
    yield made
    made.stop()
