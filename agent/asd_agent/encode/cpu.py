"""Which precision this CPU runs well."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from asd_agent.encode.meta import VariantName

# Multiply-accumulate of bytes in one instruction; without it int8 is slower than fp32.
_INT8_FLAGS = {"avx_vnni", "avx512_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm"}


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Feature flags of the first CPU ("flags" on x86, "Features" on ARM); empty where they cannot be read."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def preferred_variant(available: Iterable[VariantName], flags: set[str]) -> VariantName:
    """int8 where the CPU has byte dot products, else fp32; the only one where there is no choice."""
    variants = set(available)
    if len(variants) == 1:
        return variants.pop()
    return "int8" if "int8" in variants and flags & _INT8_FLAGS else "fp32"
