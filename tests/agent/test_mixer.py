"""Mixer settings: as `amixer` prints them, and what has changed since the calibration."""

from __future__ import annotations

import pytest

from asd_agent import config
from asd_agent.capture.devices import Card
from asd_agent.capture.mixer import mixer, of_amixer
from asd_agent.service.mixer_watch import MixerWatch

USB = """Simple mixer control 'Speaker',0
  Capabilities: pvolume pswitch pswitch-joined
  Playback channels: Front Left - Front Right
  Limits: Playback 0 - 37
  Front Left: Playback 30 [81%] [-7.00dB] [on]
Simple mixer control 'Mic',0
  Capabilities: pvolume pvolume-joined cvolume cvolume-joined pswitch pswitch-joined cswitch cswitch-joined
  Capture channels: Mono
  Limits: Playback 0 - 31 Capture 0 - 35
  Mono: Playback 0 [0%] [-34.36dB] [off] Capture 19 [54%] [14.25dB] [on]
Simple mixer control 'Line',1
  Capture channels: Front Left - Front Right
  Front Left: Capture 10 [20%] [off]
  Front Right: Capture 12 [24%] [off]
Simple mixer control 'Input Source',0
  Capabilities: cenum
  Items: 'Mic' 'Line'
  Item0: 'Mic'
Simple mixer control 'Auto Gain Control',0
  Capabilities: pswitch pswitch-joined
  Mono: Playback [on]
"""
CARD = Card(index=3, id="Device", usb_id="0d8c:0014")


def test_what_concerns_recording_is_read():
    assert of_amixer(USB) == {"Mic": "54% 14.25dB on", "Line 1": "20% off / 24% off", "Input Source": "Mic"}
    assert of_amixer("") == {}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Stand-ins for amixer and wpctl, first in the PATH."""

    def write(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return write


def test_the_card_is_asked_by_its_number_of_the_moment(programs):
    programs("amixer", f'[ "$1 $2 $3" = "-c 3 scontents" ] && cat <<EOF\n{USB}EOF')
    assert mixer("usb-id:0d8c:0014", [CARD])["Mic"] == "54% 14.25dB on"
    assert mixer("usb-id:ffff:0014", [CARD]) == {}
    programs("wpctl", "echo 'Volume: 0.70 [MUTED]'")
    assert mixer("default", [CARD]) == {"default source": "Volume: 0.70 [MUTED]"}


def test_a_system_that_says_nothing_is_no_error(programs):
    programs("amixer", "echo no such card >&2; exit 1")
    assert mixer("usb-id:0d8c:0014", [CARD]) == {}


def test_a_turned_knob_is_said(monkeypatch):
    watch = MixerWatch(config.MicrophoneSource(device="usb-id:0d8c:0014"))
    monkeypatch.setattr("asd_agent.capture.mixer.mixer", lambda device: {"Mic": "80% on", "Line": "0%"})
    assert watch.changed({"Mic": "54% on"}) == []  # not looked yet
    watch.look()
    assert watch.changed({"Mic": "54% on", "Line": "0%", "Gone": "1"}) == [
        "mixer: Mic is 80% on, in calibration 54% on"
    ]
    other = MixerWatch(config.StdinSource(rate_hz=16000))
    other.look()
    assert other.settings == {}
