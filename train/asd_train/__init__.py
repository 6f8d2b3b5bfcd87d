"""GPU fine-tuning of audio encoders for anomalous sound detection."""
