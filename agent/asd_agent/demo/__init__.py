"""The whole main job on one machine: broker, daemon, calibration, a fault, the alarm, its end."""
