"""asd-agent fleet: many agents at once over MQTT; signed baselines and bundles in stages."""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from asd_agent import config
from asd_agent.cli.options import add_config, add_json, add_machine, duration, positive
from asd_agent.cli.words import Row, print_json, say, show
from asd_agent.errors import AsdError, UsageError

if TYPE_CHECKING:
    from asd_agent.fleet.client import FleetClient, FleetConfig
    from asd_agent.fleet.rollout import Artefact
    from asd_agent.service.status import AgentStatus, MachineStatus

VARIABLE, PLACE = "ASD_FLEET_CONFIG", "fleet.yaml"
ACTIONS = {
    "status": "show the state of every machine of every agent",
    "doctor": "list what is wrong or unusual in the fleet; exit 1 when something is serious",
    "promote": "give agents their candidate, or signed artefacts; a few first, and all back where one gets worse",
    "key": "make the private key that signs artefacts; print the public one for agent.yaml",
    "pack-baseline": "sign a baseline of this host's state directory",
    "pack-bundle": "sign an encoder bundle",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, words in ACTIONS.items():
        act = actions.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        {"key": _key_arguments, "pack-baseline": _pack_arguments, "pack-bundle": _pack_arguments}.get(
            name, _online_arguments
        )(act, name)
        if name == "promote":
            _promote_arguments(act)


def _online_arguments(act: argparse.ArgumentParser, _: str) -> None:
    act.add_argument("-f", "--fleet", metavar="fleet.yaml", help=f"broker and agents (default: ${VARIABLE}, ./{PLACE})")
    act.add_argument("--agent", nargs="+", default=["*"], metavar="ID", help="agents, or patterns such as hall-*")
    act.add_argument("--machine", nargs="+", default=["*"], metavar="ID", help="machines, or patterns")
    add_json(act)


def _promote_arguments(act: argparse.ArgumentParser) -> None:
    act.add_argument("artefacts", nargs="*", metavar="ARTEFACT", help="signed files; none = what the agents have")
    act.add_argument("--version", metavar="VERSION", help="a baseline that the agents have (default: their candidate)")
    act.add_argument("--first", type=positive, default=10.0, metavar="PERCENT", help="of the agents (default 10)")
    act.add_argument("--watch", type=duration, default=600.0, metavar="10m", help="how long a stage is watched (10m)")
    act.add_argument("--url", metavar="https://...", help="agents fetch the files from this folder")


def _key_arguments(act: argparse.ArgumentParser, _: str) -> None:
    act.add_argument("-o", "--output", type=Path, default=Path("fleet.key"), metavar="fleet.key", help="a new file")
    add_json(act)


def _pack_arguments(act: argparse.ArgumentParser, name: str) -> None:
    if name == "pack-baseline":
        add_config(act)
        add_machine(act)
        act.add_argument("version", nargs="?", metavar="VERSION", help="default: the candidate, else the active one")
    else:
        act.add_argument("bundle", metavar="BUNDLE", help="name or folder")
    act.add_argument("--key", type=Path, default=Path("fleet.key"), metavar="fleet.key", help="the private key")
    act.add_argument("--for", dest="agent", default="*", metavar="AGENT", help="who may take it: an id or a pattern")
    act.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: named by its content")
    add_json(act)


def run(args: argparse.Namespace) -> int:
    from asd_agent.fleet.client import FleetClient

    if args.action == "key":
        return _key(args)
    if args.action.startswith("pack-"):
        return _pack(args)
    with FleetClient(_settings(args)) as client:
        return {"status": _status, "doctor": _doctor, "promote": _promote}[args.action](client, args)


def _settings(args: argparse.Namespace) -> FleetConfig:
    from asd_agent.config.load import read
    from asd_agent.fleet.client import FleetConfig

    return read(args.fleet or os.environ.get(VARIABLE) or PLACE, FleetConfig)


def _asked(client: FleetClient, args: argparse.Namespace) -> dict[str, AgentStatus | str]:
    """By agent its status, or why there is none. Raises UsageError when there is no agent."""
    from asd_agent.service.status import AgentStatus

    chosen = {agent: online for agent, online in client.agents.items() if _matches(agent, args.agent)}
    if not chosen:
        raise UsageError(
            f"no agent matches {' '.join(args.agent)} (the broker knows: {', '.join(client.agents) or '-'})"
        )
    answers = client.ask({agent: ("status", {}) for agent, online in chosen.items() if online})
    found: dict[str, AgentStatus | str] = {}
    for agent in chosen:
        answer = answers.get(agent)
        status = answer.typed(AgentStatus) if answer is not None else None
        found[agent] = status or (answer.error or "answers in another version" if answer is not None else "offline")
    return found


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _status(client: FleetClient, args: argparse.Namespace) -> int:
    found = _asked(client, args)
    if args.json:
        print_json({k: {"error": v} if isinstance(v, str) else v for k, v in found.items()})
    else:
        rows = []
        for agent, status in found.items():
            if isinstance(status, str):
                rows.append(Row((agent, "", status, "", "", "", "")))
                continue
            rows += [_row(agent, m) for m in status.machines if _matches(m.machine, args.machine)]
        show(("agent", "machine", "state", "score", "alarm", "signal chain", "baseline"), rows)
    return 1 if any(isinstance(status, str) for status in found.values()) else 0


def _row(agent: str, machine: MachineStatus) -> Row:
    from asd_agent.cli.status import COLOUR, HEALTH_COLOUR, alarm_words, number, shadow_words

    chain, level = machine.health.status, machine.alarm.level
    score, baseline = machine.score, machine.health.baseline or "none"
    state, value = (score.state.replace("_", " "), score.score) if score is not None else ("", None)
    cells = (agent, machine.machine, state, number(value), level,
             chain.replace("_", " "), baseline + shadow_words(machine.shadow))  # fmt: skip
    styles = {4: COLOUR.get(level, ""), 5: HEALTH_COLOUR.get(chain, "yellow")}
    return Row(cells, [words for words in (alarm_words(machine), *machine.health.reasons) if words], styles)


def _doctor(client: FleetClient, args: argparse.Namespace) -> int:
    from asd_agent.fleet.health import findings

    known = _asked(client, args)
    found = [f for f in findings(known, time.time()) if not f.machine or _matches(f.machine, args.machine)]
    if args.json:
        print_json([f._asdict() for f in found])
    else:
        for finding in found:
            where = f"{finding.agent}/{finding.machine}" if finding.machine else finding.agent
            say(f"{'FAIL' if finding.serious else 'warn'}  {where}: {finding.words}")
        troubled = {finding.agent for finding in found}
        say(f"{len(known)} agents, {len(known) - len(troubled)} of them without a finding")
    return 1 if any(finding.serious for finding in found) else 0


def _promote(client: FleetClient, args: argparse.Namespace) -> int:
    from asd_agent.fleet.rollout import Rollout, targets

    if args.version and args.artefacts:
        raise UsageError("give one of --version and signed artefacts: these bring their own version")
    artefacts = [_artefact(Path(path), args.url) for path in args.artefacts]
    if artefacts and not any(a.header.kind == "baseline" for a in artefacts):
        raise UsageError("a bundle alone changes nothing: give the baseline that was made with it too")
    known = _reached(_asked(client, args))
    chosen = list(targets(known, lambda machine: _matches(machine, args.machine), artefacts, args.version))
    if not args.version and not artefacts:
        chosen = [t for t in chosen if (m := known[t.agent].machine(t.machine)) is not None and m.shadow is not None]
    if not chosen:
        raise UsageError("no machine to promote: none matches, or none has a candidate")
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        if not args.json:
            print(line, flush=True)

    Rollout(client, chosen, artefacts, args.watch, tell).run(args.first)
    if args.json:
        print_json({"promoted": [t._asdict() for t in chosen], "log": lines})
    else:
        say(f"promoted on {len(chosen)} machines")
    return 0


def _reached(found: Mapping[str, AgentStatus | str]) -> dict[str, AgentStatus]:
    """Those that answer; of the others a line."""
    for agent, status in found.items():
        if isinstance(status, str):
            print(f"asd-agent: {agent} is left out: {status}", file=sys.stderr)
    return {agent: status for agent, status in found.items() if not isinstance(status, str)}


def _artefact(path: Path, url: str | None) -> Artefact:
    """Bundles are installed before the baselines that were made with them: the order is that of the command line."""
    from asd_agent.artefact.signed import read
    from asd_agent.fleet.rollout import Artefact

    header, signed, payload = read(path)
    return Artefact(header, signed, payload, f"{url.rstrip('/')}/{path.name}" if url else "")


def _key(args: argparse.Namespace) -> int:
    from asd_agent.artefact.signed import new_key

    _check_installed()
    public = new_key(args.output)
    if args.json:
        print_json({"private_key_file": str(args.output), "public_key": public})
        return 0
    say(f"private key: {args.output} (whoever has it decides what the agents run: keep it off the agents)")
    say("for agent.yaml of every agent:")
    print(f'artefacts:\n  public_key: "{public}"')
    return 0


def _pack(args: argparse.Namespace) -> int:
    from asd_agent.artefact.signed import load_key, read, sign

    _check_installed()
    key = load_key(args.key)
    if args.action == "pack-bundle":
        from asd_agent.encode import packed
        from asd_agent.encode.bundle import Bundle

        bundle = Bundle.load(args.bundle)
        data = sign(key, packed.pack(bundle), kind="bundle", version=bundle.sha256, agent=args.agent)
        output = args.output or Path(f"{bundle.meta.name}-{bundle.sha256[:8]}.asd")
    else:
        from asd_agent.baseline import BaselineStore
        from asd_agent.baseline.packed import pack
        from asd_agent.cli.baseline import machine

        settings = config.load(args.config)
        target = machine(settings, args.config, args.machine)
        store = BaselineStore(settings.state_dir, target.id)
        version = args.version or store.pointers().candidate or store.pointers().active
        if version is None:
            raise AsdError(f"{target.id}: there is no baseline to pack; calibrate first")
        data = sign(key, pack(store, version), kind="baseline", version=version, machine=target.id, agent=args.agent)
        output = args.output or Path(f"{target.id}-{version}.asd")
    try:
        output.write_bytes(data)
    except OSError as exc:
        raise AsdError(f"{output}: cannot be written ({exc.strerror})") from exc
    header, _, payload = read(output)
    if args.json:
        print_json({"file": str(output), "header": header})
        return 0
    say(f"{output}: {header.kind} {header.version}, {len(payload) / 1e6:.1f} MB, for {header.agent}")
    return 0


def _check_installed() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as exc:
        raise UsageError("cryptography is not installed: pip install 'asd-agent[fleet]'") from exc
