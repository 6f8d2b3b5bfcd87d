"""asd-agent status [--watch]: the live state of every machine, from the running daemon."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, NoReturn

from asd_agent import config
from asd_agent.cli.options import add_config, add_json
from asd_agent.cli.words import Row, console, lasted, listing, local, print_json, wrapped, zone
from asd_agent.service import client
from asd_agent.service.control import DaemonAbsent

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
    table = listing(heads, [_row(machine) for machine in data.machines], width)
    broker = data.sink.mqtt.detail if data.sink.mqtt else "not configured"
    foot = [
        f"agent {data.agent} {data.version}, up {lasted(data.uptime_s)}, {local(data.utc_s)} {zone()}"
        + ("" if data.time_synced else " (clock not synchronised)"),
        f"broker: {broker}, outbox {data.sink.outbox}",
        *data.sink.findings,
    ]
    return Text("\n").join([table, Text(), *(Text(wrapped(line, width), style="dim") for line in foot)])


def _row(machine: MachineStatus) -> Row:
    chain = machine.health.status
    cells = (
        machine.id,
        machine.state.replace("_", " "),
        number(machine.score),
        number(machine.threshold),
        machine.alarm.level,
        chain.replace("_", " "),
        "" if machine.lag_s is None else f"{machine.lag_s:.1f} s",
    )
    styles = {4: COLOUR.get(machine.alarm.level, ""), 5: HEALTH_COLOUR.get(chain, "yellow")}
    return Row(cells, [words for words in _notes(machine) if words], styles)


def _notes(machine: MachineStatus) -> list[str]:
    dropped = f", {machine.dropped} dropped" if machine.dropped else ""
    baseline = f"baseline {machine.baseline}" if machine.baseline else f"no baseline: asd-agent calibrate {machine.id}"
    return [
        alarm_words(machine),
        *(f"signal chain: {reason}" for reason in machine.health.reasons),
        machine.unknown_state,
        f"{baseline}{shadow_words(machine.shadow)}; {machine.windows} windows{dropped}",
    ]


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
    if alarm.shelved_until_utc_s:
        words.append(f"shelved until {local(alarm.shelved_until_utc_s)}")
    if alarm.level != "normal":
        words.append(f"since {local(alarm.since_utc_s)}: {alarm.why}")
    return ", ".join(words)
