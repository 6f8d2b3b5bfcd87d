"""What is wrong with an agent or machine, seen from outside: for `fleet doctor`, and to roll back by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from asd_agent.service.status import AgentStatus, MachineStatus
from asd_agent.types import ChainStatus, Level, utc_s

CLOCKS_APART_S = 5.0
OUTBOX_LONG = 1000
_PRESENT = (Level.ALERT, Level.DANGER)
_SERIOUS = tuple(ChainStatus)  # from good to the most serious


class Finding(NamedTuple):
    agent: str
    machine: str  # empty = the agent itself
    serious: bool  # else worth knowing
    words: str


def findings(known: Mapping[str, AgentStatus | str], now_utc_s: float) -> Iterator[Finding]:
    """`known`: by agent its status, or why there is none."""
    answered = {agent: found for agent, found in known.items() if isinstance(found, AgentStatus)}
    versions = Counter(status.version for status in answered.values())
    usual = versions.most_common(1)[0][0] if versions else ""
    for agent, status in known.items():
        if isinstance(status, str):
            yield Finding(agent, "", True, status)
            continue
        if status.version != usual:
            yield Finding(agent, "", False, f"runs {status.version}, most agents {usual}")
        off_s = utc_s(status.time) - now_utc_s
        if abs(off_s) > CLOCKS_APART_S:
            yield Finding(agent, "", False, f"its clock is {off_s:+.0f} s off this computer's")
        elif not status.time_synced:
            yield Finding(agent, "", False, "its clock is not synchronised")
        if status.sink.outbox > OUTBOX_LONG:
            yield Finding(agent, "", False, f"{status.sink.outbox} messages wait for the broker")
        for words in status.sink.findings:
            yield Finding(agent, "", False, words)
        for machine in status.machines:
            yield from _of_machine(agent, machine)


def _of_machine(agent: str, machine: MachineStatus) -> Iterator[Finding]:
    serious = machine.health.status is ChainStatus.FAILURE
    for reason in machine.health.reasons:
        yield Finding(agent, machine.machine, serious, reason)
    if machine.shadow is not None and machine.shadow.trouble:
        yield Finding(agent, machine.machine, False, f"candidate: {machine.shadow.trouble}")


def worse(before: MachineStatus, now: MachineStatus, version: str) -> str:
    """Why a machine is worse off than before it took the baseline `version`; empty when it is not."""
    if now.health.baseline != version:
        return f"runs on baseline {now.health.baseline or 'none'}, not on {version}"
    if not now.health.source_available and before.health.source_available:
        return f"the source delivers no more: {now.health.source_detail}"
    if _SERIOUS.index(now.health.status) > _SERIOUS.index(before.health.status):
        return f"signal chain {now.health.status.replace('_', ' ')}: {'; '.join(now.health.reasons)}"
    if now.alarm.level in _PRESENT and before.alarm.level not in _PRESENT:
        return f"raised an alarm: {now.alarm.reason}"
    return ""
