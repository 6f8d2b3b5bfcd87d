"""Looks at the mixer of the machine's sound card now and then, apart from everything that must not wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from asd_agent import config

EVERY_S = 600.0


class MixerWatch:
    def __init__(self, source: config.Source) -> None:
        self._device = source.device if isinstance(source, config.MicrophoneSource) else None
        self._next_s = 0.0
        self.settings: dict[str, str] = {}  # as last seen; empty where nothing can be said

    def tick(self) -> None:
        """Often; looks every ten minutes, in a thread of its own."""
        if self._device is not None and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + EVERY_S
            threading.Thread(target=self.look, name="mixer", daemon=True).start()

    def look(self) -> None:
        from asd_agent.capture.mixer import mixer

        if self._device is not None:
            self.settings = mixer(self._device)

    def changed(self, learnt: Mapping[str, str]) -> list[str]:
        """In words; `learnt` at the calibration."""
        return [
            f"mixer: {name} is {self.settings[name]}, in calibration {before}"
            for name, before in learnt.items()
            if name in self.settings and self.settings[name] != before
        ]
