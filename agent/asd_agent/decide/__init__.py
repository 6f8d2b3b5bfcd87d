"""From scores to alarms: held-out blocks, standard scores, fusion, thresholds from the budget, the alarm itself."""

from asd_agent.decide.alarm import Alarm

__all__ = ["Alarm"]
