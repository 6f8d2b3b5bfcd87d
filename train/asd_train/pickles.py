"""Reads torch checkpoints without running anything that is in them.

A pickle is a program: the ordinary unpickler calls whatever it names. Here every name becomes inert:
containers turn into dicts and lists, tensors into records of where their bytes lie, everything else
(omegaconf, numpy scalars, enums, fairseq, os.system) into an object that only keeps its state. What a program
may cost in memory is bounded before it is run (`pickle_limits`).
"""

from __future__ import annotations

import io
import itertools
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asd_agent.errors import AsdError
from asd_train.pickle_limits import check_program

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
MAX_DIMS = 64  # torch's own limit
MAX_COPIED = 2_000_000  # pairs that calls of OrderedDict copy, over the whole program
MAX_CONFIG_VALUES = 1_000_000
TENSOR_SLACK_BYTES = 256 << 20  # tensors may share storages: what they take beyond the size of the file

# Whatever a malformed program can make the pickle machine and zipfile raise. Not MemoryError: to run out of memory is
# the very thing that the limits prevent.
_MALFORMED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
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

    charge: Callable[[int], None]  # counts the pairs that are copied; raises where they become too many

    def __init__(self, *arguments: Any) -> None:
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else ()
        self.charge(len(pairs))
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
                program = stream.read()
            check_program(program)
            self.content: Any = _Unpickler(program).load()
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
            tensor = flat.as_strided(lazy.shape, lazy.strides, lazy.offset)
            # A part of a storage is copied, so that it does not keep the whole storage in memory.
            return (
                tensor.contiguous()
                if tensor.numel() == flat.numel()
                else tensor.clone(memory_format=torch.contiguous_format)
            )
        except (OSError, *_MALFORMED) as error:
            raise CheckpointError(f"{self.path}: a tensor is damaged ({_line(error)})") from error

    def tensors(self, state: Mapping[Any, Any]) -> dict[str, Tensor]:
        """The tensors among the values of a state dict; nested dicts (`_ema`) are left out."""
        found = {str(key): value for key, value in state.items() if isinstance(value, LazyTensor)}
        wanted = sum(math.prod(value.shape) * value.storage.dtype.itemsize for value in found.values())
        if wanted > 2 * self.path.stat().st_size + TENSOR_SLACK_BYTES:
            raise CheckpointError(f"{self.path}: its tensors would take {wanted >> 20} MiB, far more than the file")
        return {key: self.tensor(value) for key, value in found.items()}


def plain(value: Any, _seen: Iterator[int] | None = None) -> Any:
    """Nested configuration as dicts, lists and plain values; omegaconf is unwrapped, the rest is None.

    ValueError where lists that hold each other many times over would become too many values.
    """
    seen = itertools.count() if _seen is None else _seen
    if next(seen) > MAX_CONFIG_VALUES:
        raise ValueError(f"a configuration of more than {MAX_CONFIG_VALUES} values")
    if isinstance(value, Inert):
        state = value.state if isinstance(value.state, Mapping) else {}
        return plain(state.get("_content", state.get("_val")), seen)
    if isinstance(value, Mapping):
        return {str(plain(key, seen)): plain(item, seen) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, seen) for item in value]
    return value if isinstance(value, str | int | float | bool) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, program: bytes) -> None:
        super().__init__(io.BytesIO(program), encoding="utf-8")
        self._copied = 0

    def charge(self, count: int) -> None:
        self._copied += count
        if self._copied > MAX_COPIED:
            raise pickle.UnpicklingError(f"more than {MAX_COPIED} pairs are copied")

    def find_class(self, module: str, name: str) -> Any:
        # Each answer is made anew, so that a program that alters what it was given alters nothing else.
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _lazy(*arguments[:4])
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "collections" and name in {"OrderedDict", "defaultdict"}:
            return type(name, (InertDict,), {"__module__": module, "charge": staticmethod(self.charge)})
        return type(name, (Inert,), {"__module__": module})

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("an unknown kind of storage")
        if not isinstance(key, str | int) or not isinstance(count, int):
            raise pickle.UnpicklingError("a storage without a name and a size")
        return Storage(str(key), dtype, count)


def _lazy(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> LazyTensor:
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise pickle.UnpicklingError("a tensor without a storage")
    if len(shape) != len(strides) or len(shape) > MAX_DIMS:
        raise pickle.UnpicklingError(f"a tensor of {len(shape)} sizes and {len(strides)} strides")
    if not all(isinstance(value, int) for value in (offset, *shape, *strides)):
        raise pickle.UnpicklingError("a tensor with sizes that are not integers")
    return LazyTensor(storage, offset, shape, strides)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__
