"""A machine that has become louder than the microphone can take, where calibration never was.

Such windows clip and cannot be judged, one after the other: without this the loudest fault would be the one that is
never reported. The first of them are an event ("not assessable"); when as many of the last windows clip as have to vote
in an alarm, an alarm of its own kind is raised. A gain that somebody turned up clips too: what the mixer and the
quietest moments tell of that is in the health of the signal chain. Pure: times come in with the windows.
"""

from __future__ import annotations

import msgspec

from asd_agent.decide.alarm import Standing
from asd_agent.reasons import Grounds, Trigger
from asd_agent.types import Cause, State, WindowResult

USUAL_SHARE = 0.02  # of the calibration's windows: where more of them clipped, clipping is no news


class OverloadState(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to keep over a restart."""

    clipped: tuple[bool, ...] = ()  # the last windows that had sound
    since_utc_s: float = 0.0
    until_utc_s: float = 0.0  # end of the last window
    windows: int = 0


class Overload:
    """Not thread-safe."""

    def __init__(self, votes: tuple[int, int], clipped_share: float, state: OverloadState | None = None) -> None:
        """`votes`: k of n windows; `clipped_share` of the windows offered to the calibration."""
        self._k, self._n = votes
        self._usual = clipped_share > USUAL_SHARE
        self.state = state or OverloadState()

    def update(self, result: WindowResult) -> None:
        clips = result.state is State.NOT_ASSESSABLE and result.cause is Cause.CLIPPING
        if not clips and result.state in (State.NOT_ASSESSABLE, State.LEARNING):
            return
        state = self.state
        clipped = (*state.clipped, clips)[-self._n :]
        if not any(clipped):
            self.state = OverloadState(clipped=clipped)
        else:
            since = state.since_utc_s if any(state.clipped) else result.utc_s
            until, windows = result.utc_s + result.duration_s, state.windows + clips
            self.state = OverloadState(clipped=clipped, since_utc_s=since, until_utc_s=until, windows=windows)

    @property
    def standing(self) -> Standing | None:
        """What it says of an alarm."""
        if self._usual or not any(self.state.clipped):
            return None
        lasts_s = self.state.until_utc_s - self.state.since_utc_s
        grounds = Grounds(lasts_s=lasts_s, windows=self.state.windows)
        return Standing(Trigger.OVERLOAD, sum(self.state.clipped) / self._k, grounds)
