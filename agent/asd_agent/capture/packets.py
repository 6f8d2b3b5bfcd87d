"""What our own sound-card child writes to its standard output. No numpy here: the child must stay small.

    one JSON line        {"rate_hz": 48000, "channels": 1, "device": "USB PnP Sound Device: Audio (hw:1,0)"}
    then, per packet     uint32 flags, uint32 frames, float64 monotonic_s      (little endian, 16 bytes)
                         float32 [frames, channels]

`LOST` says that the card lost frames before this packet. `monotonic_s` is time.monotonic() when the last
frame was read; parent and child share that clock, so a backlog in the pipe does not bend the sound's time.
"""

from __future__ import annotations

import json
import struct

PACKET = struct.Struct("<IId")
LOST = 1
BLOCK_S = 0.1
SAMPLE_BYTES = 4


def hello(rate_hz: int, channels: int, device: str) -> bytes:
    return json.dumps({"rate_hz": rate_hz, "channels": channels, "device": device}).encode() + b"\n"
