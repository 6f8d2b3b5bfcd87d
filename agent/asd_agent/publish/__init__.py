"""MQTT: what is said about machines and how it gets to the broker without being lost."""

from asd_agent.publish.interval import ScoreInterval
from asd_agent.publish.messages import Messages
from asd_agent.publish.mqtt import ConnectionState, Publisher
from asd_agent.publish.requests import Handler

__all__ = ["ConnectionState", "Handler", "Messages", "Publisher", "ScoreInterval"]
