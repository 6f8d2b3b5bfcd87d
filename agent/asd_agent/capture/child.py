"""The sound-card child: `python -m asd_agent.capture.child --device NAME` writes packets (packets.py).

A process of its own, because PortAudio never refreshes its device list and can spin or hang when a card is
unplugged: the parent kills this process and starts another, which looks the name up anew. Blocking reads,
because callbacks fail under systemd's MemoryDenyWriteExecute. `--list` prints the devices as JSON instead.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from typing import Any, BinaryIO

from asd_agent.capture.devices import Input, cards, resolve
from asd_agent.capture.packets import BLOCK_S, LOST, PACKET, SAMPLE_BYTES, hello
from asd_agent.errors import SourceError

LATENCY_S = 0.5  # the card's ring buffer: what a busy processor may sleep through without loss

PORTAUDIO_FIRST_RATE_HZ = 44_100
PACE_BLOCKS = 100  # ALSA's null device and a sound server without a source hand out zeros at any speed


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="asd_agent.capture.child", description=__doc__)
    parser.add_argument("--device", default="default")
    parser.add_argument("--rate", type=int, help="default: the device's own")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args(argv)
    out = _private_stdout()
    try:
        sounddevice = _sounddevice()
        if args.list:
            listed = [replace(i, rate_hz=native_rate(sounddevice, i)) for i in inputs(sounddevice)]
            out.write(json.dumps([vars(i) for i in listed]).encode())
            out.flush()
        else:
            capture(sounddevice, out, args.device, args.rate, args.channels)
    except SourceError as exc:
        print(exc, file=sys.stderr)
        return 1
    except BrokenPipeError:
        os._exit(0)  # the parent has gone; closing a hung device on the way out could block
    return 0


def inputs(sounddevice: Any) -> list[Input]:
    """What PortAudio can record from, as it sees the world in this process."""
    apis = sounddevice.query_hostapis()
    default = sounddevice.default.device[0]
    return [
        Input(
            index=int(device["index"]),
            name=device["name"],
            channels=int(device["max_input_channels"]),
            rate_hz=round(device["default_samplerate"]),
            default=device["index"] == default,
        )
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0 and apis[device["hostapi"]]["name"] == "ALSA"
    ]


def native_rate(sounddevice: Any, device: Input) -> int:
    """PortAudio says 44,100 of everything that can do it; cards and sound servers of today run at 48,000."""
    if device.rate_hz != PORTAUDIO_FIRST_RATE_HZ:
        return device.rate_hz
    try:
        sounddevice.check_input_settings(device=device.index, channels=1, samplerate=48_000)
    except sounddevice.PortAudioError:
        return device.rate_hz
    return 48_000


def capture(sounddevice: Any, out: BinaryIO, name: str, rate_hz: int | None, channels: int) -> None:
    """Record until the pipe breaks. Raises SourceError when the device cannot be had or fails."""
    device = resolve(name, inputs(sounddevice), cards())
    if channels > device.channels:
        raise SourceError(f"{name}: {channels} channels wanted, it has {device.channels}")
    rate_hz = rate_hz or native_rate(sounddevice, device)
    try:
        with sounddevice.RawInputStream(
            device=device.index, samplerate=rate_hz, channels=channels, dtype="float32", latency=LATENCY_S
        ) as stream:
            out.write(hello(rate_hz, channels, device.name))
            while True:
                started = time.monotonic()
                for _ in range(PACE_BLOCKS):
                    _copy(stream, out, round(BLOCK_S * rate_hz), channels)
                if time.monotonic() - started < PACE_BLOCKS * BLOCK_S / 2:
                    raise SourceError(f"{name} delivers faster than time passes: there is no sound card behind it")
    except sounddevice.PortAudioError as exc:
        raise SourceError(f"{name} at {rate_hz} Hz, {channels} channel(s): {_one_line(exc)}") from exc


def _copy(stream: Any, out: BinaryIO, frames: int, channels: int) -> None:
    """One packet."""
    data, lost = stream.read(frames)
    if len(data) != frames * channels * SAMPLE_BYTES:
        raise SourceError("the sound card delivered an incomplete block")
    out.write(PACKET.pack(LOST if lost else 0, frames, time.monotonic()))
    out.write(data)
    out.flush()


def _private_stdout() -> BinaryIO:
    """The pipe for packets alone; whatever a library prints goes to stderr."""
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "wb")


def _sounddevice() -> Any:
    os.environ.setdefault("JACK_NO_START_SERVER", "1")  # else PortAudio's look at JACK can start one, with the card
    try:
        import sounddevice
    except (ImportError, OSError) as exc:
        raise SourceError(f"sound cards cannot be used: {_one_line(exc)} (apt install libportaudio2)") from exc
    return sounddevice


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())


if __name__ == "__main__":
    sys.exit(main())
