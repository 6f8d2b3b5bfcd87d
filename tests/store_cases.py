"""Alarm events and windows for the tests of store and publish."""

from __future__ import annotations

import numpy as np

from asd_agent.types import (
    AlarmEvent,
    AlarmState,
    DetectorScore,
    EventKind,
    Level,
    Quality,
    State,
    WindowResult,
)

UTC_S = 1_774_612_800.0  # 2026-03-27T12:00:00Z


def alarm_event(event_id: str, machine: str = "m1", **fields: object) -> AlarmEvent:
    values: dict[str, object] = {
        "id": event_id,
        "alarm_id": "alarm-1",
        "machine": machine,
        "kind": EventKind.RAISED,
        "level": Level.ALERT,
        "utc_s": UTC_S,
        "time_synced": True,
        "reason": "800 Hz louder (z 7)",
        "deciding_windows": (3, 4, 5),
        "score": 4.25,
    }
    return AlarmEvent(**{**values, **fields})  # type: ignore[arg-type]


def alarm_state(level: Level = Level.ALERT, **fields: object) -> AlarmState:
    return AlarmState(level=level, since_utc_s=UTC_S, alarm_id="alarm-1", **fields)  # type: ignore[arg-type]


def normal_window(
    index: int, rng: np.random.Generator, hop_s: float = 5.0, detectors: int = 5, utc_s: float = UTC_S
) -> WindowResult:
    """As a healthy machine gives them: p-values uniform, distances spread by a fifth."""
    names = ("log_mel", "log_mel_statistics", "fine_spectrum", "modulation", "mechanism", "sixth")[:detectors]
    z = rng.standard_normal(detectors)
    p = rng.uniform(size=detectors + 2)
    return WindowResult(
        index=index,
        start_s=index * hop_s,
        duration_s=10.0,
        utc_s=utc_s + index * hop_s + rng.uniform(0, 0.002),
        origin="",
        state=State.NORMAL,
        quality=Quality((), -20 + rng.normal(0, 0.5), 0.3, 0.0, 0.0),
        p_value=float(p[-1]),
        detectors=tuple(
            DetectorScore(n, float(3 * 1.2**v), float(v), float(q)) for n, v, q in zip(names, z, p, strict=False)
        ),
        embedding_p=float(p[-2]),
        embedding_distance=float(3 * 1.2 ** z[0]),
        mechanism_p=float(p[0]),
    )
