"""Bytes to frames: raw formats, our packets, standard input, and the child that writes packets."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.capture import child
from asd_agent.capture.devices import Input
from asd_agent.capture.packets import LOST, PACKET, hello
from asd_agent.capture.pcm import Chunk, Decoder, PacketDecoder, RawDecoder, decode
from asd_agent.capture.stdin import StdinSource
from asd_agent.errors import EndOfSource, SourceError

X = np.array([-1, -0.5, 0, 1 / 32768, 0.25, 0.999], np.float64).reshape(3, 2)


@pytest.mark.parametrize(
    ("sample_format", "data"),
    [
        ("s16le", (X * 2**15).astype("<i2").tobytes()),
        ("s24le", (X * 2**31).astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()),
        ("s32le", (X * 2**31).astype("<i4").tobytes()),
        ("f32le", X.astype("<f4").tobytes()),
    ],
)
def test_raw_formats(sample_format: str, data: bytes) -> None:
    y = decode(data, sample_format, 2)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, X, atol=2**-15)
    np.testing.assert_array_equal(y[:2], X[:2].astype(np.float32))


def fed(decoder: Decoder, data: bytes, sizes: list[int]) -> list[Chunk]:
    chunks, at = [], 0
    for size in [*sizes, len(data)]:
        chunks += list(decoder.feed(data[at : at + size]))
        at += size
    return chunks + list(decoder.rest())


@settings(max_examples=50, deadline=None)
@given(
    frames=st.integers(0, 4000),
    sizes=st.lists(st.integers(1, 3000), max_size=30),
    channels=st.integers(1, 3),
    sample_format=st.sampled_from(["s16le", "s24le", "f32le"]),
)
def test_no_frame_is_lost_or_torn(frames: int, sizes: list[int], channels: int, sample_format: str) -> None:
    width = {"s16le": 2, "s24le": 3, "f32le": 4}[sample_format]
    data = np.random.default_rng(frames).integers(0, 64, frames * channels * width, np.uint8).tobytes()
    chunks = fed(RawDecoder(sample_format, 4000, channels), data + b"\1" * (width - 1), sizes)
    assert all(len(c.samples) <= 2000 for c in chunks)
    assert all(len(c.samples) >= 400 for c in chunks[:-1])
    got = np.concatenate([c.samples for c in chunks]) if chunks else np.zeros((0, channels))
    np.testing.assert_array_equal(got, decode(data, sample_format, channels))


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 900), max_size=40))
def test_packets_may_come_in_any_pieces(sizes: list[int]) -> None:
    data = hello(4000, 2, "ä card") + b"".join(
        PACKET.pack(LOST * (k == 1), 50, k) + np.full((50, 2), k, "<f4").tobytes() for k in range(4)
    )
    decoder = PacketDecoder()
    chunks = fed(decoder, data, sizes)
    assert decoder.device == "ä card"
    assert [(c.samples[0, 0], c.rate_hz, c.lost, c.monotonic_s) for c in chunks] == [
        (k, 4000, k == 1, k) for k in range(4)
    ]


def test_standard_input_ends_at_its_end() -> None:
    reader, writer = os.pipe()
    source = StdinSource("s16le", 8000, 1, fd=reader)
    try:
        assert source.read(0) is None
        assert source.status().detail == "nothing on standard input"
        os.write(writer, np.arange(1000, dtype="<i2").tobytes())
        first = source.read(1)
        assert source.status().available
        os.write(writer, np.arange(300, dtype="<i2").tobytes())
        os.close(writer)
        second = source.read(1)
        assert first is not None
        assert second is not None
        assert (first.start_frame, len(first.samples), first.last) == (0, 1000, False)
        assert (second.start_frame, len(second.samples), second.last) == (1000, 300, True)
        with pytest.raises(EndOfSource):
            source.read(1)
        assert source.status().detail == "ended"
    finally:
        os.close(reader)


class FakeSound:
    """What the child uses of sounddevice: two inputs, one of them a card; the second read has lost frames."""

    PortAudioError = type("PortAudioError", (Exception,), {})

    class default:  # noqa: N801
        device = (1, 0)

    def __init__(self, fails: str = "") -> None:
        self.fails, self.opened, self.reads = fails, {}, 0  # type: ignore[var-annotated]
        self.ends_after = 3

    def query_hostapis(self) -> list[dict[str, str]]:
        return [{"name": "ALSA"}, {"name": "OSS"}]

    def query_devices(self) -> list[dict[str, Any]]:
        def device(index: int, name: str, channels: int, rate: float, api: int = 0) -> dict[str, Any]:
            return {
                "index": index,
                "name": name,
                "max_input_channels": channels,
                "default_samplerate": rate,
                "hostapi": api,
            }

        return [
            device(0, "loudspeaker", 0, 48_000.0),
            device(1, "machine", 2, 44_100.0),
            device(2, "slow: Mic (hw:1,0)", 1, 16_000.0),
            device(3, "/dev/dsp", 2, 44_100.0, api=1),
        ]

    def check_input_settings(self, **options: Any) -> None:
        assert (options["device"], options["samplerate"]) == (1, 48_000)
        if self.fails == "48k":
            raise self.PortAudioError("Invalid sample rate")

    def RawInputStream(self, **options: Any) -> FakeSound:  # noqa: N802
        if self.fails == "open":
            raise self.PortAudioError("Device unavailable\n[PaErrorCode -9985]")
        self.opened = options
        return self

    def __enter__(self) -> FakeSound:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def read(self, frames: int) -> tuple[bytes, bool]:
        self.reads += 1
        if self.reads > self.ends_after:
            raise BrokenPipeError
        return np.full((frames, self.opened["channels"]), self.reads, "<f4").tobytes(), self.reads == 2


def recorded(sound: FakeSound, rate_hz: int | None = None, channels: int = 2) -> list[Chunk]:
    out = io.BytesIO()
    with pytest.raises(BrokenPipeError):
        child.capture(sound, out, "machine", rate_hz, channels)
    return list(PacketDecoder().feed(out.getvalue()))


def test_the_child_tells_rate_channels_and_lost_frames() -> None:
    sound = FakeSound()
    chunks = recorded(sound)
    assert [(c.samples[0, 1], c.lost) for c in chunks] == [(1, False), (2, True), (3, False)]
    assert chunks[0].samples.shape == (4800, 2)
    assert (sound.opened["device"], sound.opened["dtype"]) == (1, "float32")


@pytest.mark.parametrize(
    ("fails", "asked", "rate_hz"), [("", None, 48_000), ("48k", None, 44_100), ("", 32_000, 32_000)]
)
def test_the_native_rate_unless_another_is_asked_for(fails: str, asked: int | None, rate_hz: int) -> None:
    assert {c.rate_hz for c in recorded(FakeSound(fails), asked)} == {rate_hz}


def test_what_the_child_cannot_open_is_one_line() -> None:
    with pytest.raises(SourceError, match=r"^machine at 48000 Hz, 2 channel\(s\): Device unavailable \[PaErr"):
        child.capture(FakeSound("open"), io.BytesIO(), "machine", None, 2)
    with pytest.raises(SourceError, match="3 channels wanted, it has 2"):
        child.capture(FakeSound(), io.BytesIO(), "machine", None, 3)


def test_a_device_without_a_clock_is_no_microphone() -> None:
    sound = FakeSound()
    sound.ends_after = 1000
    with pytest.raises(SourceError, match="faster than time passes"):
        child.capture(sound, io.BytesIO(), "machine", None, 2)


def test_the_child_lists_alsa_inputs_only() -> None:
    assert child.inputs(FakeSound()) == [
        Input(1, "machine", 2, 44_100, default=True),
        Input(2, "slow: Mic (hw:1,0)", 1, 16_000),
    ]
