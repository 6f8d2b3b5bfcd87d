"""asd-agent baseline list|show|compare|promote|rollback: by the daemon when it runs, else on the state directory."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.cli.options import add_config, add_json, duration
from asd_agent.cli.words import console, utc
from asd_agent.errors import BaselineError, UsageError
from asd_agent.service.control import DaemonAbsent, ask

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
            act.add_argument(
                "--since", metavar="TIME", help="take the deviating windows since then, such as 10:42 (UTC)"
            )
            act.add_argument("--last", type=duration, metavar="10m", help="take the deviating windows of the last 10m")
            act.add_argument("--candidate", action="store_true", help="do not make the new baseline the active one")
        if name == "rename":
            act.add_argument("old", metavar="OLD", help="present name of the state")
            act.add_argument("new", metavar="NEW", help="new name of the state")
        if name == "compare":
            act.add_argument("--since", type=duration, default=30 * 86400.0, metavar="30d", help="default 30d")
            add_json(act)


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    if args.machine is not None:
        machine(settings, args.config, args.machine)
    if args.action == "list":
        for item in settings.machines if args.machine is None else [machine(settings, args.config, args.machine)]:
            _list(settings, item.id)
        return 0
    if args.action == "compare":
        from asd_agent.cli import compare

        return compare.run(settings, machine(settings, args.config, args.machine), args)
    if args.action in ("extend", "rename"):
        from asd_agent.cli import states

        return states.run(settings, machine(settings, args.config, args.machine), args)
    store = BaselineStore(settings.state_dir, args.machine)
    if args.action == "show":
        pointers = store.pointers()
        version = args.version or pointers.active or pointers.candidate
        if version is None:
            raise BaselineError(f"{args.machine}: no baseline yet; run `asd-agent calibrate`")
        _show(settings, store, version)
        return 0
    words = _compared(settings, store, args) if args.action == "promote" else ""
    request: dict[str, Any] = {"machine": args.machine}
    if args.action == "promote" and args.version:
        request["version"] = args.version
    try:
        print(ask(settings, args.action, **request))
    except DaemonAbsent:
        _check_fit(machine(settings, args.config, args.machine), store, args)
        pointers = store.promote(args.version) if args.action == "promote" else store.rollback()
        print(f"{args.machine}: active baseline is now {pointers.active}")
    if words:
        print(words)
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


def _list(settings: config.Config, machine_id: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    store = BaselineStore(settings.state_dir, machine_id)
    pointers = store.pointers()
    roles = {pointers.active: "active", pointers.previous: "previous", pointers.candidate: "candidate"}
    versions = store.versions()
    if not versions:
        print(f"{machine_id}: no baseline yet; run `asd-agent calibrate`")
        return
    table = Table("machine", "version", "role", "windows", "minutes", "verdict", box=None, header_style="bold")
    for version in versions:
        try:
            report = store.load(version).manifest.report
        except BaselineError as exc:
            table.add_row(machine_id, version, roles.get(version, ""), "", "", f"[red]{escape(str(exc))}[/red]")
            continue
        verdict = "good" if report.good else "; ".join(report.concerns)
        table.add_row(
            machine_id,
            version,
            roles.get(version, ""),
            str(report.windows),
            f"{report.seconds / 60:.1f}",
            verdict,
        )
    console().print(table)


def _show(settings: config.Config, store: BaselineStore, version: str) -> None:
    manifest = store.load(version).manifest
    print(f"baseline {version} of {manifest.machine}, made {utc(manifest.created_utc_s)} UTC")
    print(f"bundles: {', '.join(f'{k} ({v[:12]})' for k, v in manifest.bundles.items())}")
    chain = manifest.chain
    heard = f", {chain.rate_hz} Hz, sound up to {chain.edge_hz / 1000:.1f} kHz" if chain.rate_hz else ""
    print(f"input: {chain.level_dbfs:.1f} dBFS ({chain.level_low_dbfs:.1f} to {chain.level_high_dbfs:.1f}){heard}")
    found = [
        f"{s.name} ({s.windows} windows)" + (f", measured as {s.extends}" if s.extends else "") for s in manifest.states
    ]
    print(f"operating states: {'; '.join(found)}")
    print_report(manifest.report, settings.state_dir)


def print_report(report: Any, state_dir: Path | None = None) -> None:
    """The verdict of a calibration, sentence by sentence; its outliers with their numbers for `calibrate --exclude`."""
    for line in report.facts:
        print(f"  {line}")
    for line in report.concerns:
        print(f"  note: {line}")
    for line in report.excluded_parts:
        print(f"  left out: {line}")
    for number, (place, line) in enumerate(zip(report.outlier_places, report.outliers, strict=False), 1):
        clip = report.outlier_clips.get(place, "")
        print(f"  outlier {number}: {line}" + (f"; listen to {state_dir / clip}" if clip and state_dir else ""))
    if len(report.outlier_places) > len(report.outliers):
        print(f"  and {len(report.outlier_places) - len(report.outliers)} more outliers")
