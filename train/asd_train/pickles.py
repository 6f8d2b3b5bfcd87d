"""Reads torch checkpoints without running anything that is in them.

A pickle is a program: the ordinary unpickler calls whatever it names. Here every name becomes inert:
containers turn into dicts and lists, tensors into records of where their bytes lie, everything else
(omegaconf, numpy scalars, enums, fairseq, os.system) into an object that only keeps its state.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asd_agent.errors import AsdError

_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Whatever a malformed program can make the pickle machine and zipfile raise.
_MALFORMED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


class CheckpointError(AsdError):
    """A checkpoint is damaged, of an unknown layout, or does not fit."""


class Inert:
    """Stands for an object of a class that is not loaded; bears whatever is done to it, keeps its state."""

    state: Any = None

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any) -> Inert:
        return Inert()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None: ...

    def add(self, item: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...


class InertDict(dict[Any, Any]):
    """OrderedDict, defaultdict and their like; their factories and attributes are dropped."""

    def __init__(self, *arguments: Any) -> None:
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else ()
        super().__init__(pairs)

    def __setstate__(self, state: Any) -> None:
        """Attributes such as a state dict's `_metadata`."""


@dataclass(frozen=True)
class Storage:
    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class LazyTensor:
    """Where a tensor lies in the archive."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchArchive:
    """A file that torch.save wrote: `content` is inert, `tensor` reads the bytes of one tensor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in self._zip.infolist()):
                raise ValueError("it is compressed, which torch never does")
            (pickled,) = [name for name in self._zip.namelist() if name.endswith("/data.pkl")]
            self._prefix = pickled.removesuffix("data.pkl")
            with self._zip.open(pickled) as stream:
                self.content: Any = _Unpickler(stream, encoding="utf-8").load()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
        except zipfile.BadZipFile as error:
            raise CheckpointError(
                f"{path}: cut off or damaged in transfer (compare its size or checksum), or not a checkpoint"
            ) from error
        except _MALFORMED as error:
            raise CheckpointError(f"{path}: damaged, or not a torch checkpoint ({_line(error)})") from error

    def tensor(self, lazy: LazyTensor) -> Tensor:
        """CheckpointError where the record points outside of its bytes."""
        storage = lazy.storage
        try:
            raw = bytearray(self._zip.read(f"{self._prefix}data/{storage.key}"))
            flat = torch.frombuffer(raw, dtype=storage.dtype, count=storage.count)
            if lazy.offset < 0 or min(lazy.strides, default=0) < 0 or math.prod(lazy.shape) > storage.count:
                raise ValueError("a tensor larger than its storage")
            return flat.as_strided(lazy.shape, lazy.strides, lazy.offset).contiguous()
        except (OSError, *_MALFORMED) as error:
            raise CheckpointError(f"{self.path}: a tensor is damaged ({_line(error)})") from error

    def tensors(self, state: Mapping[Any, Any]) -> dict[str, Tensor]:
        """The tensors among the values of a state dict; nested dicts (`_ema`) are left out."""
        return {str(key): self.tensor(value) for key, value in state.items() if isinstance(value, LazyTensor)}


def plain(value: Any) -> Any:
    """Nested configuration as dicts, lists and plain values; omegaconf is unwrapped, the rest is None."""
    if isinstance(value, Inert):
        state = value.state if isinstance(value.state, Mapping) else {}
        return plain(state.get("_content", state.get("_val")))
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) else None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Each answer is made anew, so that a program that alters what it was given alters nothing else.
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _lazy(*arguments[:4])
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        base = InertDict if module == "collections" and name in {"OrderedDict", "defaultdict"} else Inert
        return type(name, (base,), {"__module__": module})

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"unknown storage {kind!r}")
        return Storage(str(key), dtype, int(count))


def _lazy(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> LazyTensor:
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor without a storage")
    return LazyTensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__
