"""How the gain of a sound card is set, where the system can say: `amixer` for a card, `wpctl` for the system's default.

Simple mixer control 'Mic',0
  Capabilities: pvolume cvolume cswitch
  Mono: Playback 0 [0%] [-34.36dB] [off] Capture 19 [54%] [14.25dB] [on]      -> {"Mic": "54% 14.25dB on"}
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

from asd_agent.capture.devices import Card, cards, fits

TIMEOUT_S = 3.0
CONTROL = re.compile(r"^Simple mixer control '(.*)',(\d+)$")
CAPTURE = re.compile(r"Capture (?:\d+ )?((?:\[[^\]]*\] ?)+)")
ITEM = re.compile(r"^\s+Item0: '(.*)'$")


def mixer(device: str, found: Sequence[Card] | None = None) -> dict[str, str]:
    """Control -> setting, of what is recorded through; empty where nothing can be said. Never raises."""
    there = cards() if found is None else found
    fitting = [card for card in there if any(fits(device, card, number) for number in card.devices)]
    if len(fitting) == 1:
        return of_amixer(_output(["amixer", "-c", str(fitting[0].index), "scontents"]))
    if device in ("default", "pulse", "pipewire"):
        volume = _output(["wpctl", "get-volume", "@DEFAULT_AUDIO_SOURCE@"]).strip()
        return {"default source": volume} if volume.startswith("Volume:") else {}
    return {}


def of_amixer(text: str) -> dict[str, str]:
    """The output of `amixer scontents` -> control and setting."""
    settings: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if control := CONTROL.match(line):
            name = control[1] + (f" {control[2]}" if control[2] != "0" else "")
        elif name and (capture := CAPTURE.search(line)):
            setting = " ".join(re.findall(r"\[([^\]]*)\]", capture[1]))
            settings.setdefault(name, [])
            if setting not in settings[name]:
                settings[name].append(setting)
        elif name and (item := ITEM.match(line)):
            settings[name] = [item[1]]
    return {name: " / ".join(found) for name, found in settings.items()}


def _output(argv: list[str]) -> str:
    if shutil.which(argv[0]) is None:
        return ""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
