"""Bytes from a pipe -> frames: one decoder for raw PCM (commands, standard input), one for our packets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from asd_agent.capture.packets import BLOCK_S, LOST, PACKET, SAMPLE_BYTES
from asd_agent.errors import SourceError
from asd_agent.types import Samples

SAMPLE_SIZES = {"s16le": 2, "s24le": 3, "s32le": 4, "f32le": 4}
MAX_BLOCK_S = 0.5
MAX_HELLO = 4096


@dataclass(frozen=True, slots=True)
class Chunk:
    samples: Samples  # [frames, channels], full scale = 1.0
    rate_hz: int
    lost: bool = False  # frames are missing before this chunk
    monotonic_s: float | None = None  # when the last frame was read; None = unknown, take the arrival


class Decoder(Protocol):
    def feed(self, data: bytes) -> Iterator[Chunk]:
        """What can be cut from all the bytes so far. Raises SourceError when they are not what was agreed."""

    def rest(self) -> Iterator[Chunk]:
        """Whole frames that are left at the end of the stream."""


def decode(data: bytes, sample_format: str, channels: int) -> Samples:
    """Raw interleaved PCM -> float32 [frames, channels]; `data` holds whole frames."""
    if sample_format == "f32le":
        flat = np.frombuffer(data, "<f4").astype(np.float32)
    elif sample_format == "s24le":
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        flat = wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    else:
        bits = 8 * SAMPLE_SIZES[sample_format]
        flat = np.frombuffer(data, f"<i{bits // 8}").astype(np.float32) / np.float32(2 ** (bits - 1))
    return flat.reshape(-1, channels)


class RawDecoder:
    """Headerless PCM: cut into blocks of at least 0.1 s."""

    def __init__(self, sample_format: str, rate_hz: int, channels: int) -> None:
        self._format, self._rate_hz, self._channels = sample_format, rate_hz, channels
        self._frame = SAMPLE_SIZES[sample_format] * channels
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Chunk]:
        self._buffer += data
        least, most = int(BLOCK_S * self._rate_hz), int(MAX_BLOCK_S * self._rate_hz)
        while (frames := len(self._buffer) // self._frame) >= least:
            yield self._take(min(frames, most))

    def rest(self) -> Iterator[Chunk]:
        if frames := len(self._buffer) // self._frame:
            yield self._take(frames)

    def _take(self, frames: int) -> Chunk:
        data = bytes(self._buffer[: frames * self._frame])
        del self._buffer[: frames * self._frame]
        return Chunk(decode(data, self._format, self._channels), self._rate_hz)


class PacketDecoder:
    """The stream of our own child (see packets.py)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._rate_hz = 0
        self._channels = 0
        self.device = ""

    def feed(self, data: bytes) -> Iterator[Chunk]:
        self._buffer += data
        if not self._rate_hz and not self._greet():
            return
        while len(self._buffer) >= PACKET.size:
            flags, frames, monotonic_s = PACKET.unpack_from(self._buffer)
            end = PACKET.size + frames * self._channels * SAMPLE_BYTES
            if frames > MAX_BLOCK_S * self._rate_hz:
                raise SourceError("the sound-card child sent something that is not a packet")
            if len(self._buffer) < end:
                return
            samples = decode(bytes(self._buffer[PACKET.size : end]), "f32le", self._channels)
            del self._buffer[:end]
            yield Chunk(samples, self._rate_hz, bool(flags & LOST), monotonic_s)

    def rest(self) -> Iterator[Chunk]:
        return iter(())  # a packet that was cut off lost its frames with the child

    def _greet(self) -> bool:
        line, newline, _ = bytes(self._buffer[:MAX_HELLO]).partition(b"\n")
        if not newline:
            if len(self._buffer) < MAX_HELLO:
                return False
            raise SourceError("the sound-card child did not introduce itself")
        try:
            hello = json.loads(line)
            self._rate_hz, self._channels = int(hello["rate_hz"]), int(hello["channels"])
            self.device = str(hello["device"])
        except (ValueError, KeyError, TypeError) as exc:
            raise SourceError("the sound-card child did not introduce itself") from exc
        del self._buffer[: len(line) + 1]
        return True
