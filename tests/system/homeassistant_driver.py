"""Runs a real Home Assistant with its MQTT integration; started by test_homeassistant.py in an environment of its own.

    driver.py CONFIG_DIR PORT      commands come as JSON lines on standard input, answers go out the same way

"states": every MQTT entity with state and attributes; "devices": their names and what they are reached by;
"press": a button; "stop". The configuration entry of MQTT is made by the integration's own dialogue, once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from homeassistant import bootstrap, runner
from homeassistant.helpers import device_registry, entity_registry


async def main(folder: str, port: int) -> None:
    settings = runner.RuntimeConfig(config_dir=folder, skip_pip=False, log_no_color=True)
    hass = await bootstrap.async_setup_hass(settings)
    assert hass is not None
    await hass.async_start()
    if not hass.config_entries.async_entries("mqtt"):
        flow = await hass.config_entries.flow.async_init("mqtt", context={"source": "user"})
        flow = await hass.config_entries.flow.async_configure(flow["flow_id"], {"broker": "127.0.0.1", "port": port})
        assert flow["type"] == "create_entry", flow
    say({"ready": True})
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        request = json.loads(line)
        if request["do"] == "stop":
            break
        say(await answer(hass, request))
    await hass.async_stop(force=True)


async def answer(hass: Any, request: dict[str, str]) -> Any:
    entities, devices = entity_registry.async_get(hass), device_registry.async_get(hass)
    if request["do"] == "states":
        return {
            e.unique_id: {"state": s.state, "attributes": {k: str(v) for k, v in s.attributes.items()}}
            for e in entities.entities.values()
            if e.platform == "mqtt" and (s := hass.states.get(e.entity_id)) is not None
        }
    if request["do"] == "devices":
        names = {d.id: d.name for d in devices.devices.values()}
        return {d.name: names.get(d.via_device_id) for d in devices.devices.values() if owned(d)}
    target = entities.async_get_entity_id("button", "mqtt", request["unique_id"])
    await hass.services.async_call("button", "press", {"entity_id": target}, blocking=True)
    return True


def owned(device: Any) -> bool:
    return any(domain == "mqtt" for domain, _ in device.identifiers)


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
