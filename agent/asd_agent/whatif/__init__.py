"""What the alarm would have done with other settings: the stored windows decided again by what runs live."""

from asd_agent.whatif.answer import Answer, what_if
from asd_agent.whatif.episodes import Episode, episodes
from asd_agent.whatif.replay import Replay

__all__ = ["Answer", "Episode", "Replay", "episodes", "what_if"]
