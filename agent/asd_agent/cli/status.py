"""asd-agent status [--watch]: the live state of every machine, from the running daemon."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import msgspec

from asd_agent import config
from asd_agent.cli.options import add_config, add_json
from asd_agent.cli.words import console, utc
from asd_agent.service import client
from asd_agent.service.control import DaemonAbsent

if TYPE_CHECKING:
    from rich.console import RenderableType

    from asd_agent.service.status import AgentStatus, MachineStatus, ShadowStatus

REFRESH_S = 1.0
COLOUR = {"normal": "green", "alert": "yellow", "danger": "bold red"}
HEALTH_COLOUR = {"good": "green", "failure": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--watch", action="store_true", help="refresh the table every second until Ctrl-C")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    data = client.status(settings)
    if args.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(data), indent=1).decode() + "\n")
        return 0
    if args.watch:
        _watch(settings, data)
    console().print(view(data))
    return 0


def _watch(settings: config.Config, data: AgentStatus) -> NoReturn:
    """Until Ctrl-C, also while the daemon is restarted."""
    from rich.live import Live

    out = console()
    if not out.is_terminal:
        while True:
            out.print(view(data))
            time.sleep(REFRESH_S)
            data = client.status(settings)
    with Live(view(data), console=out, auto_refresh=False) as live:
        while True:
            time.sleep(REFRESH_S)
            live.update(_now(settings), refresh=True)


def _now(settings: config.Config) -> RenderableType:
    from rich.text import Text

    try:
        return view(client.status(settings))
    except DaemonAbsent as exc:
        return Text(str(exc), style="red")


def view(data: AgentStatus) -> RenderableType:
    """The status answer as a table with one line of the agent's own state below it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "machine", "state", "score", "alert at", "alarm", "signal chain", "windows", "lag", "baseline",
        box=None, header_style="bold", padding=(0, 2, 0, 0),
    )  # fmt: skip
    for m in data.machines:
        health = m.health.status
        table.add_row(
            m.id,
            "; ".join(words for words in (m.state.replace("_", " "), m.unknown_state) if words),
            number(m.score),
            number(m.threshold),
            Text(alarm_words(m), style=COLOUR.get(m.alarm.level, "")),
            Text(
                "; ".join([health.replace("_", " "), *m.health.reasons]),
                style=HEALTH_COLOUR.get(health, "yellow"),
            ),
            f"{m.windows}" + (f" ({m.dropped} dropped)" if m.dropped else ""),
            f"{m.lag_s:.1f} s" if m.lag_s is not None else "",
            (m.baseline or "none: calibrate") + shadow_words(m.shadow),
        )
    broker = data.sink.mqtt.detail if data.sink.mqtt else "not configured"
    foot = (
        f"agent {data.agent} {data.version}, up {data.uptime_s / 3600:.1f} h, broker: {broker}, "
        f"outbox {data.sink.outbox}, {utc(data.utc_s)} UTC" + ("" if data.time_synced else " (clock not synchronised)")
    )
    return Group(table, Text(foot, style="dim"))


def shadow_words(shadow: ShadowStatus | None) -> str:
    """The candidate that runs beside the active baseline."""
    if shadow is None:
        return ""
    if shadow.trouble:
        return f"; in shadow: {shadow.trouble}"
    level = "" if shadow.alarm == "normal" else f", {shadow.alarm}"
    return f"; in shadow {shadow.baseline}{level}"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def alarm_words(machine: MachineStatus) -> str:
    """The alarm in the words of ISA-18.2, with its reason."""
    alarm = machine.alarm
    words: list[str] = [alarm.level]
    for key, word in (
        ("latched", "latched"),
        ("acknowledged", "acknowledged"),
        ("out_of_service", "out of service"),
    ):
        if getattr(alarm, key):
            words.append(word)
    if alarm.shelved_until_utc_s:
        words.append(f"shelved until {utc(alarm.shelved_until_utc_s)}")
    if alarm.level != "normal" and alarm.reason:
        words.append(alarm.reason)
    return ", ".join(words)
