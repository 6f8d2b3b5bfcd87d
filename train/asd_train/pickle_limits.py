"""Bounds what a pickle can cost in memory, before it is unpickled.

A few bytes can ask for gigabytes: the memo is an array as long as the largest index in the program, a byte array is
allocated at its declared length, a tuple that is a dict key is hashed to its last leaf. Every value that the
unpickler takes from the program is therefore read first with pickletools, which allocates nothing that the program
names, and compared with limits that real checkpoints (a few thousand opcodes) stay far below.
"""

from __future__ import annotations

import pickle
import pickletools
from typing import NamedTuple

MAX_PROGRAM_BYTES = 64 << 20
MAX_OPCODES = 2_000_000
MAX_NAMES = 10_000  # each one becomes a class of about 1 kB
MAX_INTEGER_BITS = 1024
MAX_DEPTH = 100  # of nested tuples
MAX_LEAVES = 10_000  # of one nested tuple, written out

_NAMES = {"GLOBAL", "STACK_GLOBAL", "INST"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_HASHED_BY_CONTENT = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}


class _Size(NamedTuple):
    """Of a value that is hashed by its content; any other value is a leaf."""

    depth: int
    leaves: int


_LEAF, _MARK = _Size(0, 1), _Size(-1, 0)


def check_program(program: bytes) -> None:
    """UnpicklingError or ValueError where the pickle exceeds a limit or ends before its declared lengths."""
    if len(program) > MAX_PROGRAM_BYTES:
        raise pickle.UnpicklingError(f"its description is longer than {MAX_PROGRAM_BYTES >> 20} MiB")
    stack = _Stack()
    names = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if count > MAX_OPCODES:
            raise pickle.UnpicklingError(f"more than {MAX_OPCODES} opcodes")
        names += opcode.name in _NAMES
        if names > MAX_NAMES:
            raise pickle.UnpicklingError(f"more than {MAX_NAMES} names of classes")
        if isinstance(argument, int) and argument.bit_length() > MAX_INTEGER_BITS:
            raise pickle.UnpicklingError(f"an integer of {argument.bit_length()} bits")
        if opcode.name in _PUTS and not 0 <= int(str(argument)) <= count:
            raise pickle.UnpicklingError(f"memo index {argument} after {count} opcodes")
        stack.apply(opcode, argument)


class _Stack:
    """The unpickler's stack and memo with the size of each value in the place of the value."""

    def __init__(self) -> None:
        self._values: list[_Size] = []
        self._memo: dict[int, _Size] = {}

    def apply(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        if opcode.name == "MARK":
            self._values.append(_MARK)
        elif opcode.name in _PUTS or opcode.name == "MEMOIZE":
            index = argument if isinstance(argument, int) else len(self._memo)
            self._memo[index] = self._values[-1]
        elif opcode.name in _GETS:
            self._values.append(self._memo.get(int(str(argument)), _LEAF))
        elif opcode.name == "DUP":
            self._values.append(self._values[-1])
        else:
            taken = self._take(opcode)
            made = _joined(taken) if opcode.name in _HASHED_BY_CONTENT else _LEAF
            self._values.extend([made] * len(opcode.stack_after))

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[_Size]:
        """Pop what the opcode consumes: everything above the last mark, and its fixed number of values."""
        fixed, taken = len(opcode.stack_before), []
        if pickletools.markobject in opcode.stack_before:
            fixed = opcode.stack_before.index(pickletools.markobject)
            while (value := self._values.pop()) is not _MARK:
                taken.append(value)
        taken.extend(self._values.pop() for _ in range(fixed))
        return taken


def _joined(items: list[_Size]) -> _Size:
    size = _Size(1 + max((item.depth for item in items), default=0), 1 + sum(item.leaves for item in items))
    if size.depth > MAX_DEPTH:
        raise pickle.UnpicklingError(f"tuples nested more than {MAX_DEPTH} deep")
    if size.leaves > MAX_LEAVES:
        raise pickle.UnpicklingError(f"a nested tuple of more than {MAX_LEAVES} values")
    return size
