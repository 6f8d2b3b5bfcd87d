"""The shaft's speed from window to window: a comb that is not clear is looked for near the last one."""

from __future__ import annotations

from asd_agent.mechanism.analyse import Analysis
from asd_agent.mechanism.speed import comb_near

WANDER = 0.003  # relative, from one window to the next
WIDEST = 0.03
TEETH = 10
LEAST_Z, LEAST_PRESENT = 4.0, 0.35  # of a comb so near to where it is expected


class SpeedTrack:
    """A prior from the windows before, widened by WANDER for each one without a clear speed."""

    def __init__(self) -> None:
        self._hz: float | None = None
        self._reach = WANDER

    def follow(self, whole: Analysis) -> float | None:
        """The speed in the next window; None where it is unknown."""
        if whole.speed is not None and whole.speed.reliable:
            self.learn(whole.speed.hz)
            return whole.speed.hz
        if self._hz is None:
            return None
        comb = comb_near(whole.angular, self._hz, self._reach, TEETH)
        if comb.z >= LEAST_Z and comb.present >= LEAST_PRESENT:
            self.learn(comb.hz)
            return comb.hz
        self._reach = min(self._reach + WANDER, WIDEST)
        return None

    def learn(self, hz: float) -> None:
        """The speed as something else than the comb tells it: the sidebands of a train that was named."""
        self._hz, self._reach = hz, WANDER
