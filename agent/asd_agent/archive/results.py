"""Where the results of an archive go, on any file system that fsspec knows.

    <folder>/
        job.json                                     what it was made with, machine by machine
        baselines/<machine>.zip                      the baselines that judged
        windows/machine=<id>/day=<UTC day>/<key>.parquet
        alarms.parquet                               written at the end

A part holds some recordings of one machine and day, is named by them and their versions, and lists them in its
metadata. It appears under its name when it is complete; so what is there is done, and a second worker that is given the
same recordings writes the same part again.
"""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from asd_agent.archive.recordings import Recording, file_system, is_local
from asd_agent.errors import StoreError
from asd_agent.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

_METADATA = b"asd"
_ZSTD = 3


class Outcome(msgspec.Struct, frozen=True):
    """What became of one recording."""

    recording: Recording
    windows: int = 0
    seconds: float = 0.0  # of sound
    anomalous: int = 0
    error: str = ""  # why it could not be read (further)


class Part(msgspec.Struct, frozen=True):
    """What a worker wrote; also the metadata of its file."""

    machine: str
    day: str
    outcomes: list[Outcome]

    @property
    def recordings(self) -> list[Recording]:
        return [outcome.recording for outcome in self.outcomes]


class Results:
    """A folder of results. Raises StoreError, naming the file, where it cannot be read or written."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._system, self._root = file_system(url)

    # -- parts

    def part_name(self, machine: str, day: str, recordings: Sequence[Recording]) -> str:
        names = "\n".join(sorted(f"{r.url}\t{r.version}" for r in recordings))
        return f"windows/machine={machine}/day={day}/{hashlib.sha256(names.encode()).hexdigest()[:20]}.parquet"

    def part_names(self, machine: str | None = None) -> list[str]:
        """In the order of machines and days."""
        pattern = f"{self._root}/windows/machine={machine or '*'}/day=*/*.parquet"
        found = self._do(pattern, lambda: self._system.glob(pattern))
        return sorted(str(PurePosixPath(path).relative_to(self._root)) for path in found)

    def part(self, name: str) -> Part | None:
        """What the metadata of a part say; None where there is no such part."""
        if not self._system.exists(self._path(name)):
            return None
        schema = self._do(name, lambda: self._read(name, pq.read_schema))
        return msgspec.json.decode((schema.metadata or {})[_METADATA], type=Part)

    def write_part(self, name: str, part: Part, table: pa.Table) -> None:
        table = table.replace_schema_metadata({_METADATA: msgspec.json.encode(part)})
        self.write_table(name, table)

    def tidy(self) -> None:
        """Remove what workers that were killed have left."""
        for path in self._do("windows", lambda: self._system.glob(f"{self._root}/windows/*/*/*.part")):
            self._do(path, partial(self._system.rm_file, path))

    def remove(self, name: str) -> None:
        self._do(name, lambda: self._system.rm_file(self._path(name)))

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        def read(file: Any) -> pa.Table:
            return pq.ParquetFile(file).read(columns=columns)

        return self._do(name, lambda: self._read(name, read))

    def write_table(self, name: str, table: pa.Table) -> None:
        data = io.BytesIO()
        pq.write_table(table, data, compression="zstd", compression_level=_ZSTD)
        self.write(name, data.getvalue())

    # -- files

    def write(self, name: str, data: bytes) -> None:
        """Under its name it is complete."""

        def write() -> None:
            path = self._path(name)
            self._system.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            part = f"{path}.{uuid.uuid4().hex}.part"  # two workers may have been given the same
            if is_local(self._system):
                write_whole(Path(part), data)
                Path(part).rename(path)
            else:
                self._system.pipe_file(part, data)
                self._system.mv(part, path)

        self._do(name, write)

    def read(self, name: str) -> bytes | None:
        """None where there is no such file."""
        try:
            return bytes(self._system.cat_file(self._path(name)))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StoreError(f"{self.url}/{name}: cannot be read ({exc.strerror or exc})") from exc

    def _read(self, name: str, how: Callable[[Any], Any]) -> Any:
        with self._system.open(self._path(name), "rb") as file:
            return how(file)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _do(self, name: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (OSError, pa.ArrowException, KeyError, msgspec.MsgspecError) as exc:
            said = getattr(exc, "strerror", None) or exc
            raise StoreError(f"{self.url}/{name}: cannot be read or written ({said})") from exc


class Done:
    """Which recordings have been done, a few dozen bytes each; what has changed since is done again."""

    def __init__(self, results: Results, retry_failed: bool = False) -> None:
        self._results = results
        results.tidy()
        self._names: list[str] = []
        self._versions: dict[int, tuple[int, int]] = {}  # hash of the URL -> hash of the version, number of the part
        for name in results.part_names():
            part = results.part(name)
            assert part is not None
            if retry_failed and any(outcome.error for outcome in part.outcomes):
                results.remove(name)
                continue
            self._names.append(name)
            for recording in part.recordings:
                self._versions[_hash(recording.url)] = _hash(recording.version), len(self._names) - 1

    def __contains__(self, recording: Recording) -> bool:
        version, _ = self._versions.get(_hash(recording.url), (0, 0))
        return version == _hash(recording.version)

    def forget_changed(self, recordings: Iterator[Recording] | Sequence[Recording]) -> None:
        """Remove the parts with recordings that have changed since."""
        stale = {
            number
            for recording in recordings
            for version, number in [self._versions.get(_hash(recording.url), (0, -1))]
            if number >= 0 and version != _hash(recording.version)
        }
        for number in stale:
            self._results.remove(self._names[number])
        self._versions = {url: entry for url, entry in self._versions.items() if entry[1] not in stale}


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
