"""The fixtures of the system tests serve here too."""

from __future__ import annotations

import pytest
from daemons import Site, Template
from mosquitto import BINARY, Mosquitto


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    return Template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def site(tmp_path, template):
    made = Site(tmp_path, template)
    yield made
    made.close()


@pytest.fixture
def broker(tmp_path):
    if BINARY is None:
        pytest.skip("needs mosquitto (see tests/system/packages.sh)")
    made = Mosquitto(tmp_path / "broker")
    made.start()
    yield made
    made.stop()
