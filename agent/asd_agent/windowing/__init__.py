"""Blocks of sound to windows that can be judged, or that say why not."""
