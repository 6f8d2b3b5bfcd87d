"""What goes into the store and comes out of it."""

from __future__ import annotations

import math

import msgspec

from asd_agent.types import Level, State, WindowResult


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One MQTT publication. A retained one in the outbox replaces an older one of its topic."""

    topic: str
    payload: bytes
    qos: int = 1  # the outbox sends everything with QoS 1
    retain: bool = False
    expiry_s: int = 0  # MQTT 5 message expiry; 0 = never. Not kept by the outbox: what is in it never expires
    correlation: bytes = b""  # MQTT 5 correlation data of a response; not kept by the outbox


class OutboxItem(msgspec.Struct, frozen=True):
    seq: int  # never used twice, also not after a restart
    message: Message


class ScoreRow(msgspec.Struct, frozen=True, kw_only=True):
    """One window as the store keeps it. Numbers are rounded: p to 0.01 in log10, distances to 3 digits."""

    utc_s: float
    index: int
    state: State
    level: Level = Level.NORMAL
    quality: tuple[str, ...] = ()
    level_dbfs: float = 0.0
    p_value: float | None = None
    embedding_distance: float | None = None
    embedding_p: float | None = None
    mechanism_p: float | None = None
    detectors: dict[str, tuple[float, float, float]] = {}  # name -> (distance, z, p)
    baseline: str = ""
    reason: str = ""
    operating: str = ""
    nuisance: str = ""
    transient_p: float | None = None
    transient_at_s: float | None = None
    cause: str = ""  # of types.Cause

    @property
    def score(self) -> float | None:
        """-log10 of the fused p-value; high = anomalous."""
        return None if self.p_value is None else max(-math.log10(self.p_value), 0.0)

    @classmethod
    def of(cls, result: WindowResult, baseline: str) -> ScoreRow:
        return cls(
            utc_s=result.utc_s,
            index=result.index,
            state=result.state,
            level=result.level,
            quality=result.quality.causes,
            level_dbfs=result.quality.level_dbfs,
            p_value=result.p_value,
            embedding_distance=result.embedding_distance,
            embedding_p=result.embedding_p,
            mechanism_p=result.mechanism_p,
            detectors={d.name: (d.distance, d.z, d.p_value) for d in result.detectors},
            baseline=baseline,
            reason=result.reason,
            operating=result.operating,
            nuisance=result.nuisance,
            transient_p=result.transient_p,
            transient_at_s=result.transient_at_s,
            cause=result.cause or "",
        )


def shadow_name(machine: str, version: str) -> str:
    """Under which the store keeps what a candidate baseline says in shadow: no machine can be called like that."""
    return f"{machine}#{version}"


class StoreHealth(msgspec.Struct, frozen=True, kw_only=True):
    """For the agent's health: `findings` are lines for a person, empty when all is well."""

    outbox: int  # messages that no broker has acknowledged yet
    disk_full: bool  # or failing: scores are not being kept
    scores_dropped: int  # since the start
    events_waiting: int  # in memory only, for want of disk space: sent as soon as they are on disk
    bytes_on_disk: int
    findings: tuple[str, ...] = ()
