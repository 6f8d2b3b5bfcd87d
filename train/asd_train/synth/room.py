"""Two microphones in a simulated room: one near the machine, one that hears the room."""

from __future__ import annotations

import numpy as np

from asd_agent.types import Floats
from asd_train.synth.plan import Machine

REVERBERATION_S = 0.15  # to -60 dB
FAR_DB = -15.0  # of the machine at the far microphone, against the near one


def near_and_far(machine: Machine, sound: Floats, noise: Floats, rate_hz: int) -> Floats:
    """Machine [n] and surroundings [n] as they add up at the near and the far microphone: [n, 2].

    Each pair of source and microphone has an impulse response that belongs to the machine's room: a direct path and
    exponentially falling noise. The surroundings come from one place, so that both microphones hear them coherently.
    """
    rng = np.random.default_rng((machine.seed, 3))
    near = _through(sound, _response(rng, rate_hz, 0.1), rate_hz) + _through(
        noise, _response(rng, rate_hz, 0.5), rate_hz
    )
    weak = 10 ** (FAR_DB / 20) * _through(sound, _response(rng, rate_hz, 0.5), rate_hz)
    return np.stack([near, weak + _through(noise, _response(rng, rate_hz, 0.3), rate_hz)], axis=1)


def _response(rng: np.random.Generator, rate_hz: int, reverberant: float) -> Floats:
    """Direct path of 1 after up to 5 ms, and a tail of this energy."""
    n = int(REVERBERATION_S * rate_hz)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    tail *= np.sqrt(reverberant / (tail**2).sum())
    tail[0] += 1.0
    return np.concatenate([np.zeros(int(rng.integers(rate_hz * 5 // 1000))), tail])


def _through(x: Floats, response: Floats, rate_hz: int) -> Floats:
    n = len(x) + len(response)
    return np.asarray(np.fft.irfft(np.fft.rfft(x, n) * np.fft.rfft(response, n), n)[: len(x)])
