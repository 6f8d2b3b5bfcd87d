"""The edge daemon: listens to a machine and says over MQTT when its sound changes, and why."""

__version__ = "0.1.0"
