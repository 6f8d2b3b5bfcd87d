"""asd-agent status [--watch]: the live state of every machine, from the running daemon."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from asd_agent import config
from asd_agent.cli.options import add_config, add_json
from asd_agent.cli.words import Row, console, lasted, listing, local, print_json, wrapped, zone
from asd_agent.service import client
from asd_agent.service.control import DaemonAbsent
from asd_agent.types import utc_s

if TYPE_CHECKING:
    from rich.text import Text

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
        print_json(data)
        return 0
    if args.watch:
        _watch(settings, data)
    out = console()
    out.print(view(data, out.width), soft_wrap=True)
    return 0


def _watch(settings: config.Config, data: AgentStatus) -> NoReturn:
    """Until Ctrl-C, also while the daemon is restarted."""
    from rich.live import Live

    out = console()
    if not out.is_terminal:
        while True:
            out.print(view(data, out.width), soft_wrap=True)
            time.sleep(REFRESH_S)
            data = client.status(settings)
    with Live(view(data, out.width), console=out, auto_refresh=False) as live:
        while True:
            time.sleep(REFRESH_S)
            live.update(_now(settings, out.width), refresh=True)


def _now(settings: config.Config, width: int) -> Text:
    from rich.text import Text

    try:
        return view(client.status(settings), width)
    except DaemonAbsent as exc:
        return Text(wrapped(str(exc), width), style="red")


def view(data: AgentStatus, width: int) -> Text:
    """The status answer: a row a machine with what there is to say below it, then the agent's own state."""
    from rich.text import Text

    heads = ("machine", "state", "score", "limit", "alarm", "signal chain", "lag")
    table = listing(heads, [_row(machine, data.sink.findings) for machine in data.machines], width)
    broker = data.sink.mqtt.detail if data.sink.mqtt else "not configured"
    foot = [
        f"agent {data.agent} {data.version}, up {lasted(data.uptime_s)}, {shown(data.time)} {zone()}"
        + ("" if data.time_synced else " (clock not synchronised)"),
        f"broker: {broker}, outbox {data.sink.outbox}",
        *data.sink.findings,
    ]
    return Text("\n").join([table, Text(), *(Text(wrapped(line, width), style="dim") for line in foot)])


def _row(machine: MachineStatus, of_all: Sequence[str]) -> Row:
    """`of_all`: findings that are of all machines, and said below them."""
    chain, score, lag_s = machine.health.status, machine.score, machine.health.lag_s
    cells = (
        machine.machine,
        score.state.replace("_", " ") if score else "",
        number(score.score if score else None),
        number(score.score_limit if score else None),
        machine.alarm.level,
        chain.replace("_", " "),
        "" if lag_s is None else f"{lag_s:.1f} s",
    )
    styles = {4: COLOUR.get(machine.alarm.level, ""), 5: HEALTH_COLOUR.get(chain, "yellow")}
    return Row(cells, [words for words in _notes(machine, of_all) if words], styles)


def _notes(machine: MachineStatus, of_all: Sequence[str]) -> list[str]:
    health, name = machine.health, machine.machine
    dropped = f", {health.windows_dropped} dropped" if health.windows_dropped else ""
    baseline = f"baseline {health.baseline}" if health.baseline else f"no baseline: asd-agent calibrate {name}"
    return [
        alarm_words(machine),
        *(f"signal chain: {reason}" for reason in health.reasons if reason not in of_all),
        machine.score.unknown_state if machine.score else "",
        f"{baseline}{shadow_words(machine.shadow)}; {health.windows_scored} windows{dropped}",
    ]


def shadow_words(shadow: ShadowStatus | None) -> str:
    """The candidate that runs beside the active baseline."""
    if shadow is None:
        return ""
    if shadow.trouble:
        return f"; in shadow: {shadow.trouble}"
    level = "" if shadow.level in ("normal", "unknown") else f", {shadow.level}"
    return f"; in shadow {shadow.baseline}{level}"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def alarm_words(machine: MachineStatus) -> str:
    """The alarm in the words of ISA-18.2, with its reason; empty when there is nothing to say."""
    alarm = machine.alarm
    words: list[str] = [
        word
        for key, word in (
            ("latched", "latched"),
            ("acknowledged", "acknowledged"),
            ("out_of_service", "out of service"),
        )
        if getattr(alarm, key)
    ]
    if alarm.shelved_until:
        words.append(f"shelved until {shown(alarm.shelved_until)}")
    if alarm.since:
        words.append(f"since {shown(alarm.since)}: {alarm.reason}")
    return ", ".join(words)


def shown(time: str) -> str:
    """An RFC 3339 time in the zone of this computer."""

    return local(utc_s(time))
