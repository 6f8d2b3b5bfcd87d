"""The Python interface: calibrate on arrays, score arrays, save, load, open a daemon's baseline, listen live.

    from asd_agent.api import Detector

    detector = Detector.calibrate(normal, rate_hz=48_000, window_s=2, hop_s=1)
    for score in detector.score(later, rate_hz=48_000):
        print(score.start_s, score.state, score.score, score.reason)

Names in this package are stable: they change only with the major version. Packages add their own sources, detectors
and notifiers through the entry points `asd_agent.sources`, `asd_agent.detectors` and `asd_agent.notifiers`; the types
that those implement are `Source`, `Bank` and `Notifier`.
"""

from asd_agent.api.detector import Detector as Detector
from asd_agent.api.detector import Score as Score
from asd_agent.api.plugins import Notifier as Notifier
from asd_agent.bank.base import Bank as Bank
from asd_agent.capture.base import Source as Source
from asd_agent.capture.base import SourceStatus as SourceStatus
from asd_agent.errors import AsdError as AsdError
from asd_agent.errors import EndOfSource as EndOfSource
from asd_agent.errors import SourceError as SourceError
from asd_agent.publish.payloads import Event as Event
from asd_agent.publish.payloads import Health as Health
from asd_agent.types import Block as Block

__all__ = [
    "AsdError", "Bank", "Block", "Detector", "EndOfSource", "Event", "Health", "Notifier", "Score", "Source",
    "SourceError", "SourceStatus",
]  # fmt: skip
