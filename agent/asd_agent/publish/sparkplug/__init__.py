"""Sparkplug B 3.0: the agent as an edge node, its machines as devices, beside the native topics."""

from asd_agent.publish.sparkplug.node import EdgeNode

__all__ = ["EdgeNode"]
