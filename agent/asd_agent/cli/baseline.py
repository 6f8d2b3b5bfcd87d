"""asd-agent baseline list|show|compare|promote|rollback: by the daemon when it runs, else on the state directory."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from asd_agent import config
from asd_agent.baseline import BaselineStore, Report
from asd_agent.calibration.report import place
from asd_agent.cli.options import add_config, add_json, add_verbose, duration
from asd_agent.cli.words import Row, lasted, local, print_json, say, show, zone
from asd_agent.decide.reason import causes
from asd_agent.errors import BaselineError, UsageError
from asd_agent.service.control import DaemonAbsent, ask

FEW_OUTLIERS = 5
ACTIONS = {
    "list": "list versions, and which is active, previous and candidate",
    "show": "show the report of one version (default: the active one)",
    "compare": "compare the candidate in shadow with the active baseline",
    "promote": "make the candidate, or a version, the active one",
    "rollback": "go back to the previous one",
    "extend": "confirm the unknown operating state that is heard now (asks the daemon)",
    "rename": "give an operating state another name",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, words in ACTIONS.items():
        act = actions.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        add_config(act)
        act.add_argument("machine", metavar="MACHINE", nargs="?" if name == "list" else None, help="id of a machine")
        if name in ("show", "compare", "promote"):
            act.add_argument("version", metavar="VERSION", nargs="?", help="of a baseline")
        if name == "extend":
            act.add_argument("--name", default="", metavar="STATE", help='its name (default: "condition 2", ...)')
            act.add_argument("--since", metavar="TIME", help="take the deviating windows since then, such as 10:42")
            act.add_argument("--last", type=duration, metavar="10m", help="take the deviating windows of the last 10m")
            act.add_argument("--despite-alarm", action="store_true", help="also windows that raised an alarm")
            act.add_argument("--candidate", action="store_true", help="do not make the new baseline the active one")
        if name == "rename":
            act.add_argument("old", metavar="OLD", help="present name of the state")
            act.add_argument("new", metavar="NEW", help="new name of the state")
        if name == "compare":
            act.add_argument("--since", type=duration, default=30 * 86400.0, metavar="30d", help="default 30d")
        if name == "show":
            add_verbose(act)
        add_json(act)


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    if args.action == "list":
        named = [machine(settings, args.config, args.machine)] if args.machine is not None else settings.machines
        return _list(settings, [item.id for item in named], args)
    target = machine(settings, args.config, args.machine)
    if args.action == "compare":
        from asd_agent.cli import compare

        return compare.run(settings, target, args)
    if args.action in ("extend", "rename"):
        from asd_agent.cli import states

        return states.run(settings, target, args)
    return _show(settings, args) if args.action == "show" else _point(settings, target, args)


def _point(settings: config.Config, target: config.Machine, args: argparse.Namespace) -> int:
    """promote and rollback."""
    store = BaselineStore(settings.state_dir, target.id)
    compared = _compared(settings, store, args) if args.action == "promote" else ""
    request: dict[str, Any] = {"machine": target.id}
    if args.action == "promote" and args.version:
        request["version"] = args.version
    try:
        answer = str(ask(settings, args.action, **request))
    except DaemonAbsent:
        _check_fit(target, store, args)
        pointers = store.promote(args.version) if args.action == "promote" else store.rollback()
        answer = f"{target.id}: active baseline is now {pointers.active}"
    if args.json:
        print_json({"machine": target.id, "answer": answer, "compared": compared, "pointers": store.pointers()})
        return 0
    say(answer, *([compared] if compared else []))
    return 0


def _compared(settings: config.Config, store: BaselineStore, args: argparse.Namespace) -> str:
    """What the version did in shadow, in one sentence; empty when it did not run there."""
    from asd_agent.cli import compare

    version = args.version or store.pointers().candidate
    return compare.line(settings, args.machine, version) if version is not None else ""


def _check_fit(target: config.Machine, store: BaselineStore, args: argparse.Namespace) -> None:
    """What the daemon would refuse shall not become active behind its back. Raises BaselineError."""
    from asd_agent.scoring.pipeline import open_pipeline

    pointers = store.pointers()
    version = (args.version or pointers.candidate) if args.action == "promote" else pointers.previous
    if version is not None:
        open_pipeline(target, store.load(version))


def machine(settings: config.Config, path: str, machine_id: str) -> config.Machine:
    """The machine of that id. Raises UsageError that lists what there is."""
    found = settings.machine(machine_id)
    if found is None:
        known = ", ".join(m.id for m in settings.machines)
        raise UsageError(f"{path}: there is no machine {machine_id!r} (there are: {known})")
    return found


def _list(settings: config.Config, machines: list[str], args: argparse.Namespace) -> int:
    rows, data = [], []
    for name in machines:
        store = BaselineStore(settings.state_dir, name)
        pointers, versions = store.pointers(), store.versions()
        roles = {pointers.active: "active", pointers.previous: "previous", pointers.candidate: "candidate"}
        if not versions:
            rows.append(Row((name, "", "", "", ""), ["no baseline yet; run `asd-agent calibrate`"]))
        for version in versions:
            row, item = _listed(store, version, roles.get(version, ""))
            rows.append(row)
            data.append(item)
    if args.json:
        print_json(data)
    else:
        show(("machine", "version", "role", "windows", "sound"), rows)
    return 0


def _listed(store: BaselineStore, version: str, role: str) -> tuple[Row, dict[str, object]]:
    item: dict[str, object] = {"machine": store.machine, "version": version, "role": role}
    try:
        report = store.load(version).manifest.report
    except BaselineError as exc:
        return Row((store.machine, version, role, "", ""), [str(exc)]), item | {"error": str(exc)}
    cells = (store.machine, version, role, str(report.windows), lasted(report.seconds))
    return Row(cells, report.advice), item | {"windows": report.windows, "good": report.good, "advice": report.advice}


def _show(settings: config.Config, args: argparse.Namespace) -> int:
    store = BaselineStore(settings.state_dir, args.machine)
    pointers = store.pointers()
    version = args.version or pointers.active or pointers.candidate
    if version is None:
        raise BaselineError(f"{args.machine}: no baseline yet; run `asd-agent calibrate`")
    manifest = store.load(version).manifest
    if args.json:
        print_json(manifest)
        return 0
    say(f"baseline {version} of {manifest.machine}, made {local(manifest.created_utc_s)} {zone()}")
    found = [
        f"{s.name} ({s.windows} windows)" + (f", measured as {s.extends}" if s.extends else "") for s in manifest.states
    ]
    say(f"operating states: {'; '.join(found)}")
    if args.verbose:
        chain = manifest.chain
        heard = f", {chain.rate_hz} Hz, sound up to {chain.edge_hz / 1000:.1f} kHz" if chain.rate_hz else ""
        say(
            f"bundles: {', '.join(f'{k} ({v[:12]})' for k, v in manifest.bundles.items())}",
            f"input: {chain.level_dbfs:.1f} dBFS ({chain.level_low_dbfs:.1f} to {chain.level_high_dbfs:.1f}){heard}",
        )
    print_report(manifest.report, settings.state_dir, verbose=args.verbose)
    return 0


def print_report(report: Report, state_dir: Path, *, verbose: bool) -> None:
    """What a calibration is worth; its outliers have numbers for `calibrate --exclude`."""
    say(*report.advice)
    if verbose:
        say(*report.facts, indent="  ")
        say(*(f"left out: {place(w.window)}: {causes(w.causes)}" for w in report.left_out), indent="  ")
        if (more := sum(report.excluded.values()) - len(report.left_out)) > 0:
            say(f"left out: {more} more windows", indent="  ")
    elif report.excluded:
        reasons = ", ".join(f"{causes([cause])} {windows}" for cause, windows in report.excluded.items())
        say(f"{sum(report.excluded.values())} windows were left out: {reasons} (--verbose says where).")
    count = len(report.outliers)
    if not count:
        return
    say(
        f"{count} calibration window{'s exceed' if count > 1 else ' exceeds'} the limit. Listen, and leave out what is "
        "not normal with `calibrate --exclude N`:"
    )
    listed = report.outliers if verbose else report.outliers[:FEW_OUTLIERS]
    for number, outlier in enumerate(listed, 1):
        line = f"{place(outlier.window)}: score {outlier.score:.1f}, the limit is {outlier.limit:.1f} ({outlier.state})"
        listen = f"; listen to {state_dir / outlier.clip}" if outlier.clip else ""
        say(f"{number}: {line}{listen}", indent="  ")
    if count > len(listed):
        say(f"and {count - len(listed)} more" + ("" if verbose else " (--verbose lists them)"), indent="  ")
