"""Layers and training aids that systems are built from; none imports another."""
