"""Sound cards by names that stay: where they are plugged in, what they are, or what ALSA calls them.

    usb-path:1-1.4                  the socket it is plugged into
    usb-id:0d8c:0014[:serial]       the stick itself, in any socket
    hw:CARD=Device[,DEV=0], Device  the ALSA card id
    machine, pulse, default         an ALSA PCM of asound.conf; "default" is the system's choice

Never an index: the order of the cards changes from boot to boot. Names are looked up in the child at each
start, because PortAudio fixes its list when it is loaded. Cards come from /proc/asound and /sys/class/sound.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asd_agent.errors import SourceError

LIST_TIMEOUT_S = 20.0
PROC, SYS = Path("/proc"), Path("/sys")
INDEX = re.compile(r"\d+|(plug)?hw:\d+(,\d+)?")
PORTAUDIO_HW = re.compile(r"\(hw:(\d+),(\d+)\)$")


@dataclass(frozen=True)
class Input:
    """A recording device as PortAudio lists it in one process; `index` means nothing in any other."""

    index: int
    name: str
    channels: int
    rate_hz: int
    default: bool = False

    @property
    def hw(self) -> tuple[int, int] | None:
        """(card, device) numbers of the moment, for a real card."""
        match = PORTAUDIO_HW.search(self.name)
        return (int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True)
class Card:
    """A card that can record, from the kernel."""

    index: int
    id: str
    usb_path: str = ""
    usb_id: str = ""  # vid:pid
    serial: str = ""
    devices: tuple[int, ...] = (0,)  # those that capture
    busy_by: str = ""  # "arecord (pid 812)"
    rate_hz: int = 0  # 0 = not said
    channels: int = 0

    def names(self, device: int) -> tuple[str, ...]:
        """All stable names, the most telling first; USB names mean the first capturing device."""
        usb = []
        if device == self.devices[0]:
            usb += [f"usb-path:{self.usb_path}"] if self.usb_path else []
            usb += [f"usb-id:{self.usb_id}:{self.serial}"] if self.usb_id and self.serial else []
            usb += [f"usb-id:{self.usb_id}"] if self.usb_id else []
        return (*usb, f"hw:CARD={self.id},DEV={device}")


@dataclass(frozen=True)
class Device:
    """What `asd-agent devices` shows."""

    names: tuple[str, ...]  # stable, for the configuration; the first is the best
    label: str
    rate_hz: int  # native; 0 = unknown (somebody holds it)
    channels: int
    busy_by: str = ""  # empty = free

    @property
    def name(self) -> str:
        return self.names[0]


def list_devices(proc: Path = PROC, sys_: Path = SYS) -> list[Device]:
    """All recording devices, those held by others too. Raises SourceError when PortAudio cannot be used."""
    return describe(_query(), cards(proc, sys_))


def describe(inputs: Sequence[Input], found: Sequence[Card]) -> list[Device]:
    """Join PortAudio's list with the kernel's; a name that fits two cards is no name."""
    by_hw = {i.hw: i for i in inputs if i.hw}
    all_names = [name for card in found for device in card.devices for name in card.names(device)]
    devices = []
    for card in found:
        for number in card.devices:
            listed = by_hw.get((card.index, number))
            devices.append(
                Device(
                    names=tuple(n for n in card.names(number) if all_names.count(n) == 1),
                    label=PORTAUDIO_HW.sub("", listed.name).strip() if listed else card.id,
                    rate_hz=(listed.rate_hz if listed else 0) or card.rate_hz,
                    channels=listed.channels if listed else card.channels,
                    busy_by=card.busy_by,
                )
            )
    return devices + [Device((i.name,), "ALSA PCM", i.rate_hz, i.channels) for i in inputs if not i.hw]


def check_name(device: str) -> None:
    """Raises SourceError for a name that can never be right: an index."""
    if INDEX.fullmatch(device):
        raise SourceError(
            f"device {device!r} is an index, and those change from boot to boot: "
            "use usb-path:..., usb-id:..., hw:CARD=<id> or an ALSA name (asd-agent devices lists them)"
        )


def resolve(device: str, inputs: Sequence[Input], found: Sequence[Card]) -> Input:
    """The PortAudio device behind a stable name, now. Raises SourceError that says what is there instead."""
    check_name(device)
    if device == "default":
        chosen = [i for i in inputs if i.default] or [i for i in inputs if i.name == "default"]
    else:
        chosen = [i for i in inputs if i.name == device and not i.hw]
    if chosen:
        return chosen[0]
    wanted = [(c, n) for c in found for n in c.devices if fits(device, c, n)]
    if len(wanted) > 1:
        others = ", ".join(c.names(n)[0] for c, n in wanted)
        raise SourceError(f"device {device!r} fits {len(wanted)} sound cards: use one of {others}")
    if not wanted:
        there = ", ".join(d.name for d in describe(inputs, found)) or "none"
        raise SourceError(f"device {device!r} is not connected; recording devices: {there}")
    card, number = wanted[0]
    for listed in inputs:
        if listed.hw == (card.index, number):
            return listed
    holder = f"is held by {card.busy_by}" if card.busy_by else "cannot be opened (no permission, or held)"
    raise SourceError(f"device {device!r} {holder}")


def cards(proc: Path = PROC, sys_: Path = SYS) -> list[Card]:
    """The kernel's cards that can record, in the order of the moment."""
    found = sorted(proc.glob("asound/card[0-9]*"), key=lambda p: int(p.name[4:]))
    return [card for path in found if (card := _card(path, proc, sys_)).devices]


def _card(path: Path, proc: Path, sys_: Path) -> Card:
    index = int(path.name[4:])
    pcms = sorted(path.glob("pcm[0-9]*c"), key=lambda p: int(p.name[3:-1]))
    usb = (sys_ / "class/sound" / path.name / "device").resolve().parent
    is_usb = bool(re.fullmatch(r"\d+-\d+(\.\d+)*", usb.name))
    busy_by, rate_hz, channels = _holder(pcms, proc)
    if not rate_hz:
        rate_hz, channels = _usb_capture(_read(path / "stream0"))
    return Card(
        index=index,
        id=_read(path / "id"),
        usb_path=usb.name if is_usb else "",
        usb_id=_read(path / "usbid"),
        serial=_read(usb / "serial") if is_usb else "",
        devices=tuple(int(p.name[3:-1]) for p in pcms),
        busy_by=busy_by,
        rate_hz=rate_hz,
        channels=channels,
    )


def _holder(pcms: Sequence[Path], proc: Path) -> tuple[str, int, int]:
    """Who records from the card now, and at what rate and channels: ("arecord (pid 812)", 48000, 1)."""
    for sub in (s for pcm in pcms for s in sorted(pcm.glob("sub*"))):
        owner = re.search(r"owner_pid\s*:\s*(\d+)", _read(sub / "status"))
        if owner:
            params = _read(sub / "hw_params")
            rate, channels = (re.search(rf"{key}:\s*(\d+)", params) for key in ("rate", "channels"))
            command = _read(proc / owner[1] / "comm") or "another process"
            return (
                f"{command} (pid {owner[1]})",
                int(rate[1]) if rate else 0,
                int(channels[1]) if channels else 0,
            )
    return "", 0, 0


def _usb_capture(stream: str) -> tuple[int, int]:
    """Rate and channels of a USB card's capture stream from /proc/asound/cardN/stream0; (0, 0) = not said."""
    _, _, capture = stream.partition("Capture:")
    rates = re.search(r"Rates:\s*([\d, ]+)", capture)
    channels = re.search(r"Channels:\s*(\d+)", capture)
    best = max((int(r) for r in re.findall(r"\d+", rates[1]) if int(r) <= 48_000), default=0) if rates else 0
    return best, int(channels[1]) if channels else 0


def fits(device: str, card: Card, number: int) -> bool:
    """Whether a name of the configuration means this device of the card."""
    if device.startswith("plughw:"):
        device = device.removeprefix("plug")
    return device in card.names(number) or (
        number == card.devices[0] and device in (card.id, f"hw:CARD={card.id}", f"hw:{card.id}")
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _query() -> list[Input]:
    """PortAudio's list, from a fresh process: in this one it would never change again."""
    argv = [sys.executable, "-P", "-m", "asd_agent.capture.child", "--list"]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=LIST_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise SourceError(f"the sound system gave no list of devices within {LIST_TIMEOUT_S:.0f} s") from exc
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise SourceError(words[-1] if words else "the sound system gave no list of devices")
    return [Input(**item) for item in json.loads(done.stdout)]
