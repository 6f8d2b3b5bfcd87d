"""Signed artefacts: a baseline or a bundle for many agents, which take them only from who holds the private key."""
