"""A baseline goes to some agents, is watched there, then goes to the rest; where one gets worse, all go back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from asd_agent.artefact.signed import Header, Signed
from asd_agent.errors import AsdError
from asd_agent.fleet.client import Answer, FleetClient
from asd_agent.fleet.health import worse
from asd_agent.service.install import CHUNK, InstallProgress
from asd_agent.service.status import AgentStatus, MachineStatus

POLL_S = 5.0
MISSED = 2  # polls without an answer, in a row
INSTALL_S, PROMOTE_S = 90.0, 60.0  # patience: an agent fetches, checks, opens an encoder
Say = Callable[[str], None]


class Artefact(NamedTuple):
    """What is sent. With `url` the agents fetch the payload from there."""

    header: Header
    signed: Signed
    payload: bytes
    url: str = ""


class Target(NamedTuple):
    agent: str
    machine: str
    version: str | None  # None = its candidate


def stages(agents: Sequence[str], first_percent: float) -> list[list[str]]:
    """The first ones, at least one, then the rest."""
    first = min(len(agents), max(1, math.ceil(len(agents) * first_percent / 100)))
    return [part for part in (list(agents[:first]), list(agents[first:])) if part]


class Rollout:
    """`watch_s`: how long the agents of a stage are watched. Raises AsdError when it was rolled back."""

    def __init__(self, client: FleetClient, targets: Sequence[Target], artefacts: Sequence[Artefact], watch_s: float,
                 say: Say) -> None:  # fmt: skip
        self._client, self._targets, self._artefacts = client, targets, artefacts
        self._watch_s, self._say = watch_s, say
        self._before: dict[Target, str] = {}  # what was active where we have asked for another

    def run(self, first_percent: float) -> None:
        agents = list(dict.fromkeys(target.agent for target in self._targets))
        try:
            for number, stage in enumerate(stages(agents, first_percent), 1):
                self._say(f"stage {number}: {', '.join(stage)}")
                self._stage([target for target in self._targets if target.agent in stage])
        except (AsdError, KeyboardInterrupt) as exc:
            failed = self._roll_back()
            words = f"{exc or 'interrupted'}; " + ("rolled back" if not failed else f"NOT rolled back: {failed}")
            raise AsdError(words if self._before else f"{exc}; nothing was promoted") from exc

    def _stage(self, targets: Sequence[Target]) -> None:
        agents = list(dict.fromkeys(target.agent for target in targets))
        for artefact in self._artefacts:
            self._install(artefact, agents)
        before = self._status(agents)
        running: dict[Target, str] = {}
        for target in targets:
            arguments = {"machine": target.machine, **({"version": target.version} if target.version else {})}
            self._before[target] = _machine(before[target.agent], target.machine).health.baseline
            answer = self._client.ask({target.agent: ("promote", arguments)}, PROMOTE_S)[target.agent]
            if answer.error:
                raise AsdError(f"{target.agent}/{target.machine}: {answer.error}")
            running[target] = target.version or str(answer.data).rpartition(" ")[2]
            self._say(f"  {answer.data}")
        self._watch(running, before)

    def _install(self, artefact: Artefact, agents: Sequence[str]) -> None:
        """Chunk by chunk to all of them at once; each answers how much it has."""
        offsets = dict.fromkeys(agents, 0)
        while offsets:
            requests = {agent: ("install", _install_request(artefact, offset)) for agent, offset in offsets.items()}
            for agent, answer in self._client.ask(requests, INSTALL_S).items():
                progress = answer.typed(InstallProgress)
                if progress is None:
                    raise AsdError(f"{agent}: {answer.error or 'does not know this version of `install`'}")
                offsets[agent] = progress.received
                if progress.installed:
                    del offsets[agent]
        self._say(f"  {artefact.header.kind} {artefact.header.version[:20]} installed on {len(agents)} agents")

    def _watch(self, running: Mapping[Target, str], before: Mapping[str, AgentStatus]) -> None:
        """Raises AsdError as soon as a machine is worse off."""
        agents = list(dict.fromkeys(target.agent for target in running))
        missed = dict.fromkeys(agents, 0)
        began = {target: _machine(before[target.agent], target.machine) for target in running}
        latest: dict[Target, MachineStatus] = {}
        for _ in range(max(1, math.ceil(self._watch_s / POLL_S))):
            self._client.wait(min(POLL_S, self._watch_s))
            answers = self._client.ask({agent: ("status", {}) for agent in agents}, POLL_S)
            for agent, answer in answers.items():
                missed[agent] = 0 if not answer.error else missed[agent] + 1
                if missed[agent] >= MISSED:
                    raise AsdError(f"{agent}: {answer.error}")
            for target, version in running.items():
                if (status := answers[target.agent].typed(AgentStatus)) is not None:
                    latest[target] = _machine(status, target.machine)
                    if reason := worse(began[target], latest[target], version):
                        raise AsdError(f"{target.agent}/{target.machine}: {reason}")
        for target in running:
            if target not in latest or latest[target].health.windows_scored <= began[target].health.windows_scored:
                raise AsdError(f"{target.agent}/{target.machine}: no window was scored while it was watched")

    def _status(self, agents: Sequence[str]) -> dict[str, AgentStatus]:
        answers = self._client.ask({agent: ("status", {}) for agent in agents})
        found = {agent: answer.typed(AgentStatus) for agent, answer in answers.items()}
        for agent, status in found.items():
            if status is None:
                raise AsdError(f"{agent}: {answers[agent].error or 'is of another version'}")
        return {agent: status for agent, status in found.items() if status is not None}

    def _roll_back(self) -> str:
        """Everywhere; returns who did not do it."""
        failed = []
        for target, baseline in reversed(self._before.items()):
            answer = self._rolled_back(target, baseline)
            self._say(f"  back: {target.agent}: {answer.error or answer.data}")
            if answer.error:
                failed.append(f"{target.agent}/{target.machine} ({answer.error})")
        return ", ".join(failed)

    def _rolled_back(self, target: Target, baseline: str) -> Answer:
        """A promotion that was refused, or that never arrived, has nothing to take back."""
        try:
            status = self._client.ask({target.agent: ("status", {})})[target.agent]
            known = status.typed(AgentStatus)
            if known is None:
                return Answer(error=status.error or "is of another version")
            if _machine(known, target.machine).health.baseline == baseline:
                return Answer(f"{target.machine}: active baseline is still {baseline or 'none'}")
            return self._client.ask({target.agent: ("rollback", {"machine": target.machine})}, PROMOTE_S)[target.agent]
        except AsdError as exc:
            return Answer(error=str(exc))


def _install_request(artefact: Artefact, offset: int) -> dict[str, object]:
    request: dict[str, object] = msgspec.to_builtins(artefact.signed)
    if artefact.url:
        return {**request, "url": artefact.url}
    data = msgspec.to_builtins(artefact.payload[offset : offset + CHUNK])
    return {**request, "offset": offset, "data": data}


def _machine(status: AgentStatus, machine: str) -> MachineStatus:
    found = status.machine(machine)
    if found is None:
        raise AsdError(f"{status.agent}: there is no machine {machine!r} any more")
    return found


def targets(
    known: Mapping[str, AgentStatus], machines: Callable[[str], bool], artefacts: Sequence[Artefact],
    version: str | None,
) -> Iterator[Target]:  # fmt: skip
    """The machines that are to be promoted: of an artefact the one that it is for, else all that are asked for."""
    import fnmatch

    baselines = [a.header for a in artefacts if a.header.kind == "baseline"]
    for agent, status in known.items():
        for machine in status.machines:
            mine = [
                h.version for h in baselines if h.machine == machine.machine and fnmatch.fnmatchcase(agent, h.agent)
            ]
            if machines(machine.machine) and (mine or not baselines):
                yield Target(agent, machine.machine, mine[-1] if mine else version)
