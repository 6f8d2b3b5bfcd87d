"""Sound sources. Names load on first use: the children start from this package and must stay small.

* sources.py: open_source(config, channels_used) -> Source
* files.py: read_file(path), recordings(paths)
* devices.py: list_devices()
* simulate.py: the simulated machine and its faults
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asd_agent.capture.base import Source as Source
    from asd_agent.capture.base import SourceStatus as SourceStatus
    from asd_agent.capture.devices import Device as Device
    from asd_agent.capture.devices import list_devices as list_devices
    from asd_agent.capture.files import read_file as read_file
    from asd_agent.capture.files import recordings as recordings
    from asd_agent.capture.sources import open_source as open_source

_WHERE = {
    "Device": "devices",
    "Source": "base",
    "SourceStatus": "base",
    "list_devices": "devices",
    "open_source": "sources",
    "read_file": "files",
    "recordings": "files",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
