"""Encoder bundles: the format, the session that runs one, and words for what an embedding shows."""
