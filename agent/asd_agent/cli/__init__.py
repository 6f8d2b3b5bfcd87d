"""The command `asd-agent`: parses the line and hands over; every command lives in a module of its own, loaded late."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Sequence

from asd_agent import __version__
from asd_agent.errors import AsdError

CONFIG_HELP = "configuration file (YAML)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Exit codes: 0, 2 for usage and configuration errors, 1 otherwise."""
    args = parser().parse_args(argv)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: for one window, threads cost more than they give
    try:
        from asd_agent import log

        log.configure("warning")  # to stderr: the standard output is for results
        module = importlib.import_module(f"asd_agent.cli.{args.module}")
        return int(module.run(args))
    except AsdError as exc:
        print(f"asd-agent: {exc}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `asd-agent score ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as exc:  # no room, no permission: nobody needs a traceback for that
        print(f"asd-agent: {f'{exc.filename}: ' if exc.filename else ''}{exc.strerror or exc}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="asd-agent",
        description="Listens to a machine, learns on site what normal sounds like, and says over MQTT when that "
        "changes and why.",
        epilog="First steps: devices -> write agent.yaml -> doctor -> calibrate -> run.",
    )
    top.add_argument("--version", action="version", version=f"asd-agent {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, module: str, help_: str, *, config: bool = True, machine: bool = False
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
        sub.set_defaults(module=module)
        if config:
            sub.add_argument("-c", "--config", required=True, metavar="agent.yaml", help=CONFIG_HELP)
        if machine:
            sub.add_argument("machine", metavar="MACHINE", help="id of a machine in the configuration")
        return sub

    command("run", "run", "listen, score, alarm: the daemon (SIGHUP reloads, SIGTERM ends)")

    sub = command(
        "calibrate", "calibrate", "learn what normal sounds like and write a candidate baseline", machine=True
    )
    sub.add_argument("--from", dest="paths", nargs="+", metavar="PATH", help="recordings instead of the live source")
    sub.add_argument("--duration", type=duration, default=None, metavar="10m", help="how long to listen (default 10m)")
    sub.add_argument("--extend", action="store_true", help="a further state beside those of the active baseline")
    sub.add_argument("--name", default="", metavar="STATE", help="of the further state (with --extend)")
    sub.add_argument(
        "--widen", choices=("smote", "memmixup", "density", "none"), default="smote",
        help="how few windows (under 24) of the further state are made more, or their distances rescaled by local "
        "density (default smote)",
    )  # fmt: skip
    sub.add_argument(
        "--exclude", type=numbers, metavar="N[,M]", help="the last calibration without these of its outliers"
    )
    sub.add_argument("--exclude-outliers", action="store_true", help="the last calibration without any of them")
    sub.add_argument("--promote", action="store_true", help="make the new baseline the active one")
    sub.add_argument("--shadow", action="store_true", help="a candidate of the bundle in `shadow`, to run beside")
    sub.add_argument("--json", action="store_true", help="print the report as JSON")

    sub = command("score", "score", "score recordings against the active baseline, on the live path", machine=True)
    sub.add_argument("paths", nargs="+", metavar="PATH", help="audio files or folders (WAV, FLAC, OGG, MP3)")
    sub.add_argument("-o", "--output", metavar="scores.csv", help="write CSV here (default: standard output)")
    sub.add_argument("--baseline", metavar="VERSION", help="another baseline than the active one")

    sub = command("demo", "demo", "everything on one machine with an embedded broker; a fault appears", config=False)
    sub.add_argument("--fast", action="store_true", help="the short version (about half the time)")
    sub.add_argument("--minutes", type=positive, metavar="N", help="listen this long after the calibration")
    sub.add_argument(
        "--source",
        default="simulated",
        metavar="SOURCE",
        help="simulated (default), microphone[:DEVICE], or a PATH",
    )

    sub = command("status", "status", "live state of every machine, from the running daemon")
    sub.add_argument("--watch", action="store_true", help="keep the table on the screen")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("devices", "devices", "list sound cards by stable name, with native rates", config=False)
    sub.add_argument("--json", action="store_true", help="print JSON")

    command("doctor", "doctor", "check configuration, bundle, baseline, sound devices, broker, clock and disk")

    sub = command("bench", "bench", "ms per window, memory, and how many machines this box can serve")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("baseline", "baseline", "list, show, compare, promote, roll back or extend baselines", config=False)
    actions = sub.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, help_ in (
        ("list", "versions, and which is active, previous and candidate"),
        ("show", "the report of one version"),
        ("compare", "the candidate in shadow against the active one"),
        ("promote", "make the candidate (or a version) the active one"),
        ("rollback", "go back to the previous one"),
        ("extend", "confirm the unknown operating state that is heard now (asks the daemon)"),
        ("rename", "another name for an operating state"),
    ):
        act = actions.add_parser(name, help=help_)
        act.add_argument("-c", "--config", required=True, metavar="agent.yaml", help=CONFIG_HELP)
        act.add_argument("machine", metavar="MACHINE", nargs="?" if name == "list" else None)
        if name in ("show", "compare", "promote"):
            act.add_argument("version", metavar="VERSION", nargs="?")
        if name == "extend":
            act.add_argument("--name", default="", metavar="STATE", help='its name (default: "condition 2", ...)')
            act.add_argument("--since", metavar="TIME", help="deviating windows since then, e.g. 10:42 (UTC)")
            act.add_argument("--last", type=duration, metavar="10m", help="deviating windows of so long ago until now")
            act.add_argument("--candidate", action="store_true", help="do not make the new baseline the active one")
        if name == "rename":
            act.add_argument("old", metavar="OLD")
            act.add_argument("new", metavar="NEW")
        if name == "compare":
            act.add_argument("--since", type=duration, default=30 * 86400.0, metavar="30d", help="default 30d")
            act.add_argument("--json", action="store_true", help="print JSON")

    sub = command("alarms", "alarms", "list, acknowledge or shelve alarms", config=False)
    actions = sub.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, help_ in (
        ("list", "alarm events, newest last"),
        ("ack", "acknowledge the alarm of a machine"),
        ("shelve", "no notifications until a time (still scored and recorded)"),
        ("unshelve", "end the shelving now"),
        ("out-of-service", "no notifications until back in service (--off)"),
    ):
        act = actions.add_parser(name, help=help_)
        act.add_argument("-c", "--config", required=True, metavar="agent.yaml", help=CONFIG_HELP)
        if name == "list":
            act.add_argument("machine", metavar="MACHINE", nargs="?")
            act.add_argument("-n", "--limit", type=int, default=50, help="how many (default 50)")
            act.add_argument("--json", action="store_true", help="one JSON object a line")
            continue
        act.add_argument("machine", metavar="MACHINE")
        act.add_argument("--by", default=os.environ.get("USER", ""), help="who (default: $USER)")
        act.add_argument("--reason", default="", help="a comment that is stored with it")
        if name == "shelve":
            act.add_argument("--for", dest="duration", type=duration, default=3600.0, metavar="1h", help="default 1h")
        if name == "out-of-service":
            act.add_argument("--off", action="store_true", help="back in service")

    sub = command("replay", "replay", "compute the score of an alarm again from its clip, and compare")
    sub.add_argument("event", metavar="EVENT", help="id of an alarm event (its beginning is enough), or its clip")
    sub.add_argument("--csv", action="store_true", help="print what was stored (then) and what comes out (now) as CSV")
    sub.add_argument(
        "--picture", metavar="out.png", help="spectrogram with the deciding band and time, and normal sound"
    )
    sub.add_argument(
        "--listen", metavar="DIR", help="write the alarm's window and the nearest normal ones to this folder"
    )

    sub = command("embed", "embed", "embeddings of recordings, by a bundle", config=False)
    sub.add_argument("--bundle", required=True, metavar="DIR", help="a bundle's folder, or a shipped name")
    sub.add_argument("paths", nargs="+", metavar="PATH", help="audio files or folders")
    sub.add_argument("-o", "--output", required=True, metavar="out.npz", help="`file` and one array per embedding")

    sub = command(
        "mechanism", "mechanism", "indicators of recordings against the baseline, findings, a picture", machine=True
    )
    sub.add_argument("paths", nargs="+", metavar="PATH", help="audio files or folders")
    sub.add_argument("--json", action="store_true", help="print JSON, one object a recording")
    sub.add_argument("--all", action="store_true", help="every indicator, not only those that stand out")
    sub.add_argument("--plot", metavar="out.png", help="waveform, spectrum, envelope spectrum and wavelet map")
    sub.add_argument("--rpm", type=float, metavar="RPM", help="the speed of the reference shaft during the recording")

    sub = command("trend", "trend", "does the score grow, how fast, and since when", machine=True)
    sub.add_argument("--since", type=duration, default=30 * 86400.0, metavar="30d", help="default 30d")
    sub.add_argument("--plot", metavar="out.png", help="score, level and distances over time")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("whatif", "whatif", "the stored scores under other alarm settings: alarms then and now", machine=True)
    sub.add_argument("--votes", metavar="4/6", help="k of n windows that raise it (alarm.window_votes)")
    sub.add_argument("--clear-votes", metavar="4/5", help="k of n windows that end it (alarm.clear_votes)")
    sub.add_argument("--budget", type=float, metavar="0.5", help="alarm.false_alarms_per_month")
    sub.add_argument("--deadband", type=float, metavar="0.15", help="alarm.deadband")
    sub.add_argument("--danger-factor", type=float, metavar="1000", help="alarm.danger_factor")
    sub.add_argument("--transient-repeats", type=int, metavar="4", help="alarm.transient_repeats")
    sub.add_argument("--since", type=duration, default=30 * 86400.0, metavar="30d", help="default 30d")
    sub.add_argument("-n", "--limit", type=int, default=50, help="alarms to list (default 50)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    return top


def duration(text: str) -> float:
    """ "90", "90s", "10m", "1.5h", "2d" -> seconds."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    number, factor = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
    try:
        seconds = float(number) * factor
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 3.2e7:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 10m, 1.5h or 2d")
    return seconds


def numbers(text: str) -> list[int]:
    """ "1,3" -> [1, 3]."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,3")
    return found


def positive(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
