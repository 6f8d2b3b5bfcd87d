"""The daemon's status as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from asd_agent.service.status import AgentStatus, MachineStatus
from asd_agent.types import ChainStatus, Level, State

LEVELS = {Level.NORMAL: 0.0, Level.ALERT: 1.0, Level.DANGER: 2.0}


def exposition(status: AgentStatus | None, viewers: int) -> bytes:
    """`status`: None = the daemon does not answer."""
    registry = CollectorRegistry()
    registry.register(_Metrics(status, viewers))
    return generate_latest(registry)


class _Metrics(Collector):
    def __init__(self, status: AgentStatus | None, viewers: int) -> None:
        self._status, self._viewers = status, viewers

    def collect(self) -> Iterator[Metric]:
        status = self._status
        yield GaugeMetricFamily("asd_up", "1 while the daemon answers", float(status is not None))
        yield GaugeMetricFamily("asd_page_viewers", "Open pages that are kept up to date", float(self._viewers))
        if status is None:
            return
        yield GaugeMetricFamily("asd_uptime_seconds", "Since the daemon started", status.uptime_s)
        yield GaugeMetricFamily("asd_time_synced", "1 when the clock is synchronised", float(status.time_synced))
        yield GaugeMetricFamily("asd_outbox_messages", "That the broker has not acknowledged", status.sink.outbox)
        connected = status.sink.mqtt is not None and status.sink.mqtt.connected
        yield GaugeMetricFamily("asd_mqtt_connected", "1 while connected to the broker", float(connected))
        yield CounterMetricFamily("asd_scores_dropped", "Not published or not stored", status.sink.scores_dropped)
        for name, words, kind in _NUMBERS:
            family = kind(f"asd_machine_{name}", words, labels=["machine"])
            for machine in status.machines:
                if (value := _value(machine, name)) is not None:
                    family.add_metric([machine.machine], value)
            yield family
        yield _one_of("asd_machine_state", "1 for the state of the newest window", "state", list(State),
                      {m.machine: m.score.state for m in status.machines if m.score is not None})  # fmt: skip
        yield _one_of("asd_machine_chain", "1 for the state of the signal chain", "status", list(ChainStatus),
                      {m.machine: m.health.status for m in status.machines})  # fmt: skip


_NUMBERS = (
    ("source_available", "1 while the sound source delivers", GaugeMetricFamily),
    ("score", "-log10 p of the newest window", GaugeMetricFamily),
    ("score_limit", "Score from which a window deviates", GaugeMetricFamily),
    ("alarm_level", "0 normal, 1 alert, 2 danger; absent while unknown", GaugeMetricFamily),
    ("alarm_acknowledged", "1 when somebody has acknowledged the alarm", GaugeMetricFamily),
    ("shelved", "1 while shelved or out of service", GaugeMetricFamily),
    ("level_dbfs", "RMS of the newest window", GaugeMetricFamily),
    ("lag_seconds", "From the end of a window to its score", GaugeMetricFamily),
    ("windows_scored", "Since the start", CounterMetricFamily),
    ("windows_dropped", "Lost because the agent was too slow", CounterMetricFamily),
    ("restarts", "Of the sound source since the start", CounterMetricFamily),
    ("gaps", "Places where sound is missing", CounterMetricFamily),
)


def _value(machine: MachineStatus, name: str) -> float | None:
    alarm, health, score = machine.alarm, machine.health, machine.score
    values: dict[str, float | None] = {
        "source_available": float(health.source_available),
        "score": score.score if score else None,
        "score_limit": score.score_limit if score else None,
        "alarm_level": LEVELS.get(alarm.level),
        "alarm_acknowledged": float(alarm.acknowledged),
        "shelved": float(alarm.shelved_until is not None or alarm.out_of_service),
        "level_dbfs": health.level_dbfs,
        "lag_seconds": health.lag_s,
        "windows_scored": health.windows_scored,
        "windows_dropped": health.windows_dropped,
        "restarts": health.restarts,
        "gaps": health.gaps,
    }
    return values[name]


def _one_of(name: str, words: str, label: str, known: Sequence[str], found: Mapping[str, str]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=["machine", label])
    for machine, value in found.items():
        for candidate in known:
            family.add_metric([machine, str(candidate)], float(candidate == value))
    return family
