"""Recordings in any format that libsndfile reads, as blocks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from asd_agent.errors import SourceError
from asd_agent.types import Block, Samples

log = structlog.get_logger()

BLOCK_S = 0.25
SUFFIXES = frozenset(
    (".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".w64", ".wav")
)
UNKNOWN_SIZE = 0x7FFF_0000  # from here on a WAV header written to a pipe means "until the end"
MOST_CHANNELS, HIGHEST_RATE_HZ = 256, 4_000_000  # beyond them a header is damaged, and a block would not fit
MP3_CERTAIN = 0.95  # its length can be an estimate


def recordings(paths: Iterable[str | Path]) -> list[Path]:
    """Files as they are, folders as all recordings below them in the order of their names.

    Raises SourceError for a path that is not there and for a folder without recordings.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise SourceError(f"{path}: no recordings in this folder ({', '.join(sorted(SUFFIXES))})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise SourceError(f"{path}: no such file or folder")
    return found


def read_file(path: str | Path, utc_s: float | None = None, block_s: float = BLOCK_S) -> Iterator[Block]:
    """A recording as blocks of `block_s`, all channels, float32; `utc_s` stamps the first frame (default: now).

    A recording that is cut off or damaged is read as far as it goes, with one warning in the log. Raises
    SourceError, naming the file, when there is no sound to be had from it at all.
    """
    utc_s = time.time() if utc_s is None else utc_s
    sound, promised = _open(Path(path))
    with sound:
        rate_hz, start = int(sound.samplerate), 0
        chunks = _chunks(sound, block_s)
        chunk = next(chunks, None)
        while chunk is not None:
            following = next(chunks, None)
            yield Block(
                samples=chunk,
                rate_hz=rate_hz,
                start_frame=start,
                utc_s=utc_s + start / rate_hz,
                monotonic_s=time.monotonic(),
                origin=str(path),
                last=following is None,
            )
            start += len(chunk)
            chunk = following
    if not start:
        raise SourceError(f"{path}: holds no sound (0 frames)")
    if start < promised:
        log.warning(
            "recording is cut off or damaged: what is there was read",
            file=str(path),
            read_s=round(start / rate_hz, 3),
            promised_s=round(promised / rate_hz, 3),
        )


def file_blocks(path: str, loop: bool = False) -> Iterator[Block]:
    """The blocks of one file; with `loop` for ever, each pass a segment of its own."""
    while True:
        yield from read_file(path)
        if not loop:
            return


def directory_blocks(path: str, loop: bool = False) -> Iterator[Block]:
    """The blocks of all recordings below a folder; one that cannot be read is skipped with a warning.

    Raises SourceError when none can be read.
    """
    if not Path(path).is_dir():
        raise SourceError(f"{path}: no such folder")
    utc_s = time.time()
    while True:
        readable = False
        for file in recordings([path]):
            try:
                for block in read_file(file, utc_s):
                    readable = True
                    yield block
                utc_s = block.utc_s + len(block.samples) / block.rate_hz
            except SourceError as exc:
                log.warning("recording skipped", reason=str(exc))
        if not readable:
            raise SourceError(f"{path}: none of its recordings can be read")
        if not loop:
            return


def _open(path: Path) -> tuple[Any, int]:
    """An open SoundFile and the number of frames that the file promises."""
    import soundfile

    class ForwardOnly(soundfile.SoundFile):  # type: ignore[misc]
        """soundfile seeks after every read; in an MP3 that loses the bits it keeps in earlier frames."""

        def seekable(self) -> bool:
            return False

    try:
        with path.open("rb") as raw:
            if not raw.read(1):
                raise SourceError(f"{path}: the file is empty (0 bytes)")
            cut = _wav_cut(raw)
        sound = ForwardOnly(path)
    except OSError as exc:
        raise SourceError(f"{path}: cannot be read ({exc.strerror or exc})") from exc
    except soundfile.LibsndfileError as exc:
        raise SourceError(f"{path}: not a recording that can be read ({exc.error_string.rstrip('.')})") from exc
    if not (0 < sound.channels <= MOST_CHANNELS and 0 < sound.samplerate <= HIGHEST_RATE_HZ):
        claims = f"{sound.channels} channels at {sound.samplerate} Hz"
        sound.close()
        raise SourceError(f"{path}: claims {claims}: its header is damaged, or it is no recording of a machine")
    certain = MP3_CERTAIN if sound.format == "MP3" else 1.0
    return sound, int(sound.frames * cut * certain)


def _wav_cut(raw: BinaryIO) -> float:
    """Promised over present bytes of a WAV file's sound; 1 = complete, or not a WAV file.

    libsndfile corrects a header that promises more than there is without a word.
    """
    size = raw.seek(0, 2)
    raw.seek(0)
    riff = raw.read(12)
    if riff[:4] != b"RIFF" or riff[8:12] != b"WAVE":
        return 1.0
    while len(head := raw.read(8)) == 8:
        name, length = head[:4], int.from_bytes(head[4:], "little")
        if name == b"data":
            present = size - raw.tell()
            return length / present if 0 < present < length < UNKNOWN_SIZE else 1.0
        raw.seek(length + length % 2, 1)
    return 1.0


def _chunks(sound: Any, block_s: float) -> Iterator[Samples]:
    """[frames, channels] until the end, or until the decoder gives up on damage."""
    import soundfile

    frames = max(1, round(block_s * sound.samplerate))
    while True:
        try:
            chunk = sound.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            return  # fewer frames than promised: `read_file` says so
        if not len(chunk):
            return
        yield chunk
