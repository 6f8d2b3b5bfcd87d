"""Parts that systems are built from; each knows nothing of the others."""
