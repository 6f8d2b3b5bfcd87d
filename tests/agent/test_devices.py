from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from asd_agent.capture.devices import Card, Device, Input, cards, describe, resolve
from asd_agent.errors import SourceError

STREAM = """Generic USB Audio at usb-3f980000.usb-1.4, high speed : USB Audio

Playback:
  Interface 1
    Channels: 2
    Rates: 96000
Capture:
  Status: Stop
  Interface 2
    Altset 1
    Format: S16_LE
    Channels: 1
    Endpoint: 0x82 (2 IN) (ASYNC)
    Rates: 8000, 16000, 44100, 48000, 96000
"""


class Tree:
    """A fake /proc and /sys."""

    def __init__(self, root: Path) -> None:
        self.proc, self.sys = root / "proc", root / "sys"

    def write(self, path: str, text: str) -> None:
        (self.proc / path).parent.mkdir(parents=True, exist_ok=True)
        (self.proc / path).write_text(text + "\n")

    def card(self, index: int, card_id: str, pcms: tuple[str, ...] = ("pcm0c",)) -> None:
        self.write(f"asound/card{index}/id", card_id)
        for pcm in pcms:
            self.write(f"asound/card{index}/{pcm}/sub0/status", "closed")
            self.write(f"asound/card{index}/{pcm}/sub0/hw_params", "closed")

    def usb(self, index: int, port: str, usb_id: str, serial: str = "") -> None:
        interface = self.sys / "devices/platform/soc/usb1/1-1" / port / f"{port}:1.0"
        (interface / "sound" / f"card{index}").mkdir(parents=True)
        (interface / "sound" / f"card{index}" / "device").symlink_to("../..")
        if serial:
            (interface.parent / "serial").write_text(serial + "\n")
        links = self.sys / "class/sound"
        links.mkdir(parents=True, exist_ok=True)
        (links / f"card{index}").symlink_to(interface / "sound" / f"card{index}")
        self.write(f"asound/card{index}/usbid", usb_id)
        self.write(f"asound/card{index}/stream0", STREAM)


@pytest.fixture
def found(tmp_path: Path) -> list[Card]:
    tree = Tree(tmp_path)
    tree.card(0, "PCH", ("pcm0c", "pcm0p", "pcm2c"))
    tree.card(1, "vc4hdmi", ("pcm0p",))  # cannot record
    tree.card(2, "Device")
    tree.usb(2, "1-1.4", "0d8c:0014", "A17")
    tree.card(10, "Device_1")
    tree.usb(10, "1-1.2", "0d8c:0014")
    tree.write("asound/card10/pcm0c/sub0/status", "state: RUNNING\nowner_pid   : 812\nhw_ptr: 5")
    tree.write("asound/card10/pcm0c/sub0/hw_params", "access: RW\nformat: S16_LE\nchannels: 2\nrate: 32000 (32000/1)")
    tree.write("812/comm", "arecord")
    return cards(tree.proc, tree.sys)


INPUTS = [
    Input(4, "HDA Intel PCH: ALC256 Analog (hw:0,0)", 2, 48_000),
    Input(5, "HDA Intel PCH: ALC256 Alt Analog (hw:0,2)", 2, 48_000),
    Input(6, "USB PnP Sound Device: Audio (hw:2,0)", 1, 48_000),
    Input(7, "machine", 32, 48_000),
    Input(8, "default", 32, 48_000, default=True),
]


def test_the_kernels_cards(found: list[Card]) -> None:
    assert [(c.index, c.id, c.usb_path, c.usb_id, c.serial, c.devices) for c in found] == [
        (0, "PCH", "", "", "", (0, 2)),
        (2, "Device", "1-1.4", "0d8c:0014", "A17", (0,)),
        (10, "Device_1", "1-1.2", "0d8c:0014", "", (0,)),
    ]
    assert [(c.busy_by, c.rate_hz, c.channels) for c in found] == [
        ("", 0, 0),
        ("", 48_000, 1),
        ("arecord (pid 812)", 32_000, 2),
    ]


def test_devices_have_stable_names_rates_and_holders(found: list[Card]) -> None:
    assert describe(INPUTS, found) == [
        Device(("hw:CARD=PCH,DEV=0",), "HDA Intel PCH: ALC256 Analog", 48_000, 2),
        Device(("hw:CARD=PCH,DEV=2",), "HDA Intel PCH: ALC256 Alt Analog", 48_000, 2),
        Device(
            ("usb-path:1-1.4", "usb-id:0d8c:0014:A17", "hw:CARD=Device,DEV=0"),
            "USB PnP Sound Device: Audio",
            48_000,
            1,
        ),
        Device(("usb-path:1-1.2", "hw:CARD=Device_1,DEV=0"), "Device_1", 32_000, 2, "arecord (pid 812)"),
        Device(("machine",), "ALSA PCM", 48_000, 32),
        Device(("default",), "ALSA PCM", 48_000, 32),
    ]


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("usb-path:1-1.4", 6),
        ("usb-id:0d8c:0014:A17", 6),
        ("hw:CARD=Device,DEV=0", 6),
        ("plughw:CARD=Device,DEV=0", 6),
        ("hw:CARD=Device", 6),
        ("hw:Device", 6),
        ("Device", 6),
        ("PCH", 4),
        ("hw:CARD=PCH,DEV=2", 5),
        ("machine", 7),
        ("default", 8),
    ],
)
def test_a_name_finds_its_device(found: list[Card], name: str, index: int) -> None:
    assert resolve(name, INPUTS, found).index == index


def test_every_listed_name_of_a_free_device_can_be_opened(found: list[Card]) -> None:
    for device in describe(INPUTS, found):
        for name in device.names if not device.busy_by else ():
            resolve(name, INPUTS, found)


def test_names_follow_the_stick_when_the_cards_change_places(found: list[Card]) -> None:
    moved = [dataclasses.replace(c, index=c.index + 1) for c in found]
    inputs = [Input(9, "USB PnP Sound Device: Audio (hw:3,0)", 1, 48_000)]
    assert resolve("usb-path:1-1.4", inputs, moved).index == 9


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("usb-id:0d8c:0014", r"fits 2 sound cards: use one of usb-path:1-1.4, usb-path:1-1.2"),
        ("usb-path:1-1.2", r"is held by arecord \(pid 812\)"),
        (
            "usb-path:1-9",
            r"is not connected; recording devices: hw:CARD=PCH,DEV=0, hw:CARD=PCH,DEV=2, usb-path",
        ),
        ("hw:0,0", "is an index"),
        ("2", "is an index"),
        ("USB PnP Sound Device: Audio (hw:2,0)", "is not connected"),  # an index in disguise
    ],
)
def test_what_cannot_be_opened_says_why(found: list[Card], name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        resolve(name, INPUTS, found)


def test_no_default_device_is_said_in_words() -> None:
    with pytest.raises(SourceError, match="'default' is not connected; recording devices: none"):
        resolve("default", [], [])


def test_a_system_without_sound_has_no_cards(tmp_path: Path) -> None:
    assert cards(tmp_path, tmp_path) == []
