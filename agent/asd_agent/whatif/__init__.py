"""What the alarm would have done with other settings: the stored windows decided again by what runs live."""

from asd_agent.whatif.answer import Answer, what_if
from asd_agent.whatif.episodes import AlarmSpan, Episode, episodes, span_of
from asd_agent.whatif.replay import Replay

__all__ = ["AlarmSpan", "Answer", "Episode", "Replay", "episodes", "span_of", "what_if"]
