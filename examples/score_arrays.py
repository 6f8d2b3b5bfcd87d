"""Calibrate on an array, score another one, save and load: `python examples/score_arrays.py`."""

from __future__ import annotations

import tempfile

import numpy as np

from asd_agent.api import Detector

RATE_HZ = 16_000


def machine(seconds: float, seed: int, whistle: float = 0.0) -> np.ndarray:
    """A hum with noise, [samples]; `whistle` is the amplitude of a tone that does not belong there."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(seed).normal(0, 0.02, len(t))
    return 0.1 * np.sin(2 * np.pi * 100 * t) + noise + whistle * np.sin(2 * np.pi * 3000 * t)


detector = Detector.calibrate([machine(60, 1), machine(60, 2)], RATE_HZ, window_s=2, hop_s=1)
print(detector.verdict)
with tempfile.TemporaryDirectory() as folder:
    detector.save(folder)
    detector = Detector.load(folder)
for name, sound in (("normal", machine(6, 3)), ("whistling", machine(6, 4, whistle=0.05))):
    scores = [score for score in detector.score(sound, RATE_HZ) if score.score is not None]
    worst = max(scores, key=lambda score: score.score or 0.0)
    print(f"{name}: {worst.state}, score {worst.score:.1f} (limit {detector.limit:.1f}) {worst.reason}")
