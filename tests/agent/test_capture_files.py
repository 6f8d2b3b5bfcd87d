from __future__ import annotations

import os
import time
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import structlog

from asd_agent import config
from asd_agent.capture import open_source, read_file, recordings
from asd_agent.errors import EndOfSource, SourceError
from asd_agent.types import Block, Samples

RATE = 16_000


def tones(seconds: float = 1.3, channels: int = 2) -> Samples:
    t = np.arange(round(seconds * RATE)) / RATE
    return np.stack([0.4 * np.sin(2 * np.pi * 300 * (c + 1) * t) for c in range(channels)], 1).astype(np.float32)


def joined(blocks: list[Block]) -> Samples:
    return np.concatenate([b.samples for b in blocks])


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.wav", "PCM_U8", 1 / 128),
        ("a.wav", "PCM_16", 1 / 32768),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "PCM_32", 1e-7),
        ("a.wav", "FLOAT", 0),
        ("a.wav", "DOUBLE", 0),
        ("a.flac", "PCM_16", 1 / 32768),
        ("a.aiff", "PCM_24", 1e-6),
        ("a.ogg", "VORBIS", 0.04),
        ("a.mp3", "MPEG_LAYER_III", 0.04),
    ],
)
def test_every_format_is_read(tmp_path: Path, name: str, subtype: str, error: float) -> None:
    x = tones()
    soundfile.write(tmp_path / name, x, RATE, subtype=subtype)
    with structlog.testing.capture_logs() as logs:
        blocks = list(read_file(tmp_path / name, utc_s=5000.0))
    y = joined(blocks)
    assert y.dtype == np.float32
    assert y.shape == x.shape
    inside = slice(2000, -2000)  # the lossy formats bend the beginning and the end
    assert np.abs(y - x)[inside].max() <= error
    assert [b.last for b in blocks] == [False] * 5 + [True]
    assert [b.start_frame for b in blocks] == [4000 * k for k in range(6)]
    assert blocks[2].utc_s == 5000.5
    assert {b.origin for b in blocks} == {str(tmp_path / name)}
    assert {b.rate_hz for b in blocks} == {RATE}
    assert logs == []


def test_reading_an_mp3_in_blocks_gives_what_reading_it_at_once_gives(tmp_path: Path) -> None:
    noise = (0.1 * np.random.default_rng(0).standard_normal((40_000, 1))).astype(np.float32)
    soundfile.write(tmp_path / "a.mp3", noise, RATE)
    whole, _ = soundfile.read(tmp_path / "a.mp3", dtype="float32", always_2d=True)
    np.testing.assert_allclose(joined(list(read_file(tmp_path / "a.mp3"))), whole, atol=1e-6)


def test_nan_in_a_float_file_reaches_the_quality_check(tmp_path: Path) -> None:
    x = tones()
    x[100] = np.nan
    soundfile.write(tmp_path / "a.wav", x, RATE, subtype="FLOAT")
    assert np.isnan(joined(list(read_file(tmp_path / "a.wav")))).sum() == 2


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("a.wav", "PCM_16"),
        ("a.wav", "PCM_24"),
        ("a.wav", "FLOAT"),
        ("a.wav", "IMA_ADPCM"),
        ("a.flac", "PCM_16"),
    ],
)
def test_what_is_left_of_a_truncated_file_is_read_with_one_warning(tmp_path: Path, name: str, subtype: str) -> None:
    path = tmp_path / name
    soundfile.write(path, tones(4.0, 1), RATE, subtype=subtype)
    whole = joined(list(read_file(path)))
    os.truncate(path, int(path.stat().st_size * 0.6))
    with structlog.testing.capture_logs() as logs:
        left = joined(list(read_file(path)))
    assert 1.5 * RATE < len(left) < 2.5 * RATE
    np.testing.assert_array_equal(left[: 3 * RATE // 2], whole[: 3 * RATE // 2])
    (warning,) = logs
    assert warning["log_level"] == "warning"
    assert warning["file"] == str(path)
    assert warning["promised_s"] == pytest.approx(4.0, abs=0.05)
    assert warning["read_s"] == pytest.approx(len(left) / RATE, abs=1e-3)


def test_a_wav_from_a_pipe_promises_no_length_and_is_not_truncated(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tones(1.0, 1), RATE, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    for size in (0xFFFF_FFFF, 0x7FFF_FFFF):
        data[at : at + 4] = size.to_bytes(4, "little")
        path.write_bytes(data)
        with structlog.testing.capture_logs() as logs:
            assert len(joined(list(read_file(path)))) == RATE
        assert logs == []


def empty_wav(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.wav", lambda p: p.write_bytes(b""), r"a\.wav: the file is empty \(0 bytes\)"),
        ("a.wav", empty_wav, r"a\.wav: holds no sound \(0 frames\)"),
        ("a.wav", lambda p: p.write_text("not sound at all"), r"a\.wav: not a recording that can be read"),
        (
            "a.flac",
            lambda p: p.write_bytes(b"fLaC" + bytes(20)),
            r"a\.flac: not a recording that can be read",
        ),
        ("a.wav", lambda p: None, r"a\.wav: cannot be read \(No such file or directory\)"),
        ("a.wav", lambda p: p.mkdir(), r"a\.wav: cannot be read \(Is a directory\)"),
    ],
)
def test_a_file_without_sound_is_one_clear_line(tmp_path: Path, name: str, make: object, message: str) -> None:
    make(tmp_path / name)  # type: ignore[operator]
    with pytest.raises(SourceError, match=message) as caught:
        list(read_file(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_recordings_of_files_and_folders(tmp_path: Path) -> None:
    for name in ("b/2.flac", "b/1.WAV", "a/x.ogg", "a/notes.txt", "c/y.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = recordings([tmp_path / "c/y.mp3", tmp_path])
    assert [str(p.relative_to(tmp_path)) for p in found] == [
        "c/y.mp3",
        "a/x.ogg",
        "b/1.WAV",
        "b/2.flac",
        "c/y.mp3",
    ]
    with pytest.raises(SourceError, match="no such file or folder"):
        recordings([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no recordings in this folder"):
        recordings([tmp_path / "empty"])


def test_a_file_source_reads_to_its_end_and_says_so(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tones(), RATE, subtype="FLOAT")
    with open_source(config.FileSource(path=str(tmp_path / "a.wav"), pace="fast")) as source:
        np.testing.assert_array_equal(joined(list(source)), tones())
        assert source.rate_hz == RATE
        with pytest.raises(EndOfSource):
            source.read(0)
        assert source.status().detail == "the recording has been read to its end"


def test_a_missing_file_is_a_permanent_mistake(tmp_path: Path) -> None:
    with open_source(config.FileSource(path=str(tmp_path / "a.wav"))) as source:
        for _ in range(2):
            with pytest.raises(SourceError, match="No such file"):
                source.read(1)
        assert not source.status().available
        assert "No such file" in source.status().detail


def test_a_looped_file_begins_anew_each_time(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tones(0.5), RATE)
    with open_source(config.FileSource(path=str(tmp_path / "a.wav"), pace="fast", loop=True)) as source:
        blocks = [block for _ in range(7) if (block := source.read(1)) is not None]
    assert [(b.start_frame, b.last) for b in blocks] == [(0, False), (4000, True)] * 3 + [(0, False)]


def test_a_directory_skips_what_cannot_be_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "1.wav", tones(0.25), RATE)
    (tmp_path / "2.wav").touch()
    soundfile.write(tmp_path / "3.flac", tones(0.5, 1)[::2], RATE // 2)
    with (
        structlog.testing.capture_logs() as logs,
        open_source(config.DirectorySource(path=str(tmp_path), pace="fast")) as source,
    ):
        blocks = list(source)
    assert [(Path(b.origin).name, b.rate_hz, b.start_frame, b.last) for b in blocks] == [
        ("1.wav", RATE, 0, True),
        ("3.flac", RATE // 2, 0, False),
        ("3.flac", RATE // 2, 2000, True),
    ]
    assert np.diff([b.utc_s for b in blocks]) == pytest.approx([0.25, 0.25])
    assert [entry["reason"] for entry in logs] == [f"{tmp_path}/2.wav: the file is empty (0 bytes)"]


def test_a_directory_without_anything_readable_fails(tmp_path: Path) -> None:
    (tmp_path / "2.wav").touch()
    for path, message in ((tmp_path, "none of its recordings"), (tmp_path / "x", "no such folder")):
        with (
            open_source(config.DirectorySource(path=str(path), loop=True)) as source,
            pytest.raises(SourceError, match=message),
        ):
            source.read(1)


def test_live_pace_delivers_as_slowly_as_life(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tones(1.0), RATE)
    with open_source(config.FileSource(path=str(tmp_path / "a.wav"), pace="live")) as source:
        start = time.monotonic()
        assert source.read(0.01) is None  # the first quarter second has not been heard yet
        for k, block in enumerate(source):
            assert time.monotonic() - start >= 0.25 * (k + 1) - 0.011
            assert block.monotonic_s >= start
            assert abs(block.utc_s + 0.25 - time.time()) < 60
    assert k == 3


def test_the_simulated_machine_is_a_source() -> None:
    simulated = config.SimulatedSource(duration_s=0.6, pace="fast", faults=[config.Fault(kind="hiss")])
    with open_source(simulated) as source:
        assert [len(b.samples) for b in source] == [4000, 4000, 1600]
    with pytest.raises(SourceError, match="channel 1"):
        open_source(simulated, [1])
