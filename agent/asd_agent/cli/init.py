"""asd-agent init: a few questions (or flags), and the agent is configured; as root it is installed and started too."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import TextIO

import msgspec

from asd_agent import config
from asd_agent.cli.options import add_json, positive
from asd_agent.cli.words import print_json, say
from asd_agent.errors import AsdError, UsageError
from asd_agent.setup import Answers, Places, configuration, install
from asd_agent.setup.answers import host_id, source_words
from asd_agent.setup.install import systemd_runs, write
from asd_agent.setup.meter import levels

METER_S = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="agent.yaml", help="write only this file; install nothing")
    parser.add_argument("--yes", action="store_true", help="ask nothing: what no flag gives takes its default")
    parser.add_argument("--example", action="store_true", help="print a complete example with every key, and stop")
    parser.add_argument("--completion", choices=("bash", "zsh"), help="print the completion for a shell, and stop")
    answers = parser.add_argument_group("answers")
    answers.add_argument("--agent", metavar="ID", help="name of this agent (default: that of the computer)")
    answers.add_argument(
        "--source", metavar="SOURCE", help="sound card by stable name, simulated, or a folder of recordings"
    )
    answers.add_argument("--channel", type=int, metavar="N", help="of the sound card, counted from 0")
    answers.add_argument("--broker", metavar="URL", help="mqtt://host or mqtts://host; none: alarms stay here")
    answers.add_argument("--username", help="for the broker; its password is asked for, or read from --password-file")
    answers.add_argument("--password-file", metavar="FILE", help="holds the broker's password")
    answers.add_argument("--ca-file", metavar="FILE", help="certificate authority of the broker")
    answers.add_argument("--machine", metavar="ID", help="name of the machine")
    answers.add_argument("--rpm", type=positive, help="speed of its shaft, so that alarms name components")
    answers.add_argument("--mains-hz", type=positive, metavar="HZ", help="mains frequency, for an electric motor")
    answers.add_argument("--bearing", action="append", default=[], metavar="[NAME=]TYPE", help="such as DE=6205")
    answers.add_argument("--gear", action="append", default=[], type=int, metavar="TEETH", help="teeth of a pinion")
    answers.add_argument("--state-dir", metavar="DIR", help="baselines, scores and alarms")
    add_json(parser, "print what was done as JSON (with --yes)")


def run(args: argparse.Namespace) -> int:
    if args.example:
        from asd_agent.setup.example import example

        sys.stdout.write(example())
        return 0
    if args.completion:
        return _completion(args.completion)
    as_root = args.output is None and os.geteuid() == 0 and systemd_runs()
    path = Path(args.output or "agent.yaml")
    if not as_root and path.exists():
        raise UsageError(f"{path}: exists already; name another file with -o, or move it away")
    asking = not args.yes and sys.stdin.isatty()
    answers = _answers(args, as_root=as_root, asking=asking)
    text = configuration(answers)
    password = _password(args, answers, asking=asking)
    if as_root:
        done = install(text, password)
        path = Places().configuration
    else:
        write(path, text, 0o644)
        done = [f"wrote {path}"]
    follow = f"asd-agent calibrate {answers.machine} --duration 10m --promote"
    if args.json:
        print_json({"configuration": str(path), "done": done, "next": follow})
        return 0
    say(*(f"{line}." for line in done))
    option = "" if as_root or path == Path("agent.yaml") else f" -c {path}"
    if not as_root:
        say("Start the agent in another terminal, or with systemd:")
        print(f"  asd-agent run{option}")
    say("Next, while the machine runs as it usually does:")
    print(f"  asd-agent calibrate{option} {answers.machine} --duration 10m --promote")
    return 0


def _answers(args: argparse.Namespace, *, as_root: bool, asking: bool) -> Answers:
    """Flags first; then questions, if somebody is there to answer."""
    state = "/var/lib/asd-agent" if as_root else str(_own_state())
    found = Answers(
        agent=args.agent or host_id(),
        state_dir=args.state_dir or state,
        machine=args.machine or "machine-1",
        source=args.source or "default",
        channel=args.channel or 0,
        broker=args.broker,
        username=args.username,
        ca_file=args.ca_file,
        rpm=args.rpm,
        mains_hz=args.mains_hz,
        bearings=tuple(args.bearing),
        gears=tuple(args.gear),
    )
    if not as_root and args.password_file:
        found = msgspec.structs.replace(found, password_file=str(Path(args.password_file).resolve()))
    if not asking:
        return found
    if args.source is None:
        source, channel = _microphone()
        found = msgspec.structs.replace(found, source=source, channel=channel)
    if args.broker is None:
        broker = _ask("MQTT broker, such as mqtts://broker:8883 (empty: none)", "")
        found = msgspec.structs.replace(found, broker=broker or None)
        if broker and args.username is None:
            found = msgspec.structs.replace(found, username=_ask("user name at the broker (empty: none)", "") or None)
    if args.machine is None:
        found = msgspec.structs.replace(found, machine=_ask("name of the machine", found.machine))
        if args.rpm is None:
            found = _motor(found)
    return found


def _motor(found: Answers) -> Answers:
    """What turns; every question may stay unanswered."""
    rpm = _ask("speed of its shaft in rpm, if it has a motor (empty: not known)", "")
    if not rpm:
        return found
    bearings = _ask("its bearings, such as DE=6205, NDE=6204 (empty: not known)", "")
    try:
        speed = float(rpm)
    except ValueError as exc:
        raise UsageError(f"{rpm!r} is not a speed in rpm") from exc
    named = tuple(part.strip() for part in bearings.split(",") if part.strip())
    return msgspec.structs.replace(found, rpm=speed, bearings=named)


def _microphone() -> tuple[str, int]:
    """The chosen sound card, and its channel, after a look at its level."""
    from asd_agent.capture import list_devices

    devices = list_devices()
    if not devices:
        say("No sound card was found; going on with the simulated machine. Change `source` later.")
        return "simulated", 0
    for number, device in enumerate(devices, 1):
        say(f"{number}: {device.label}, {device.channels} channel(s), {device.names[0]}")
    chosen = _ask("which microphone", "1")
    if not chosen.isdecimal() or not 1 <= int(chosen) <= len(devices):
        raise UsageError(f"{chosen!r} is not a number from 1 to {len(devices)}")
    device = devices[int(chosen) - 1]
    try:
        _meter(device.names[0])
    except AsdError as exc:
        say(f"no level: {exc}")
    return device.names[0], 0


def _meter(source: str, seconds: float = METER_S, out: TextIO = sys.stderr) -> None:
    """A bar for some seconds, then what to do about the level."""
    import yaml

    described = msgspec.convert(yaml.safe_load(source_words(source)), config.Source)
    advice = ""
    for level in levels(described, seconds):
        filled = round(40 * max(0.0, 1 + level.rms_dbfs / 80))
        out.write(f"\r[{'#' * filled:40}] {level.rms_dbfs:6.1f} dBFS, peak {level.peak_dbfs:6.1f}")
        out.flush()
        advice = level.advice
    out.write("\n")
    say(f"The level is {advice}." if advice else "The level is fine.")


def _password(args: argparse.Namespace, answers: Answers, *, asking: bool) -> str | None:
    if args.password_file:
        try:
            return Path(args.password_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise UsageError(f"{args.password_file}: cannot be read ({getattr(exc, 'strerror', None) or exc})") from exc
    return getpass.getpass("password at the broker: ") if asking and answers.username else None


def _ask(question: str, default: str) -> str:
    answer = input(f"{question}{f' [{default}]' if default else ''}: ").strip()
    return answer or default


def _own_state() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "asd-agent"


def _completion(shell: str) -> int:
    try:
        import shtab
    except ImportError as exc:
        raise UsageError("completions need shtab: pip install shtab") from exc
    from asd_agent.cli import parser

    sys.stdout.write(shtab.complete(parser(), shell) + "\n")
    return 0
