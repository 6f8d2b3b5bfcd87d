"""Shared fixtures and a memory guard. Real recordings and weights live beside the repository in ../shared, never in it.

The guard: a test whose process, or one of whose child processes, takes more than `memory_limit_mib` (pyproject.toml)
fails. A second, hard limit stops an allocation that would take the machine's memory away from everything else.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
_BEFORE = pytest.StashKey[tuple[int, int, int]]()


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """../shared, with the real recordings, weights and reference outputs."""
    if not (SHARED / "DESIGN.md").is_file():
        pytest.skip(f"needs the real recordings and weights in {SHARED}, which are not on this machine")
    return SHARED


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("memory_limit_mib", "memory that one test may take, in MiB", default="2048")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    item.stash[_BEFORE] = (_memory("VmRSS"), _memory("VmHWM"), _children())
    _limit_data(2 * _allowed(item))
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    result = yield
    resident, peak_before, children_before = item.stash[_BEFORE]
    peak, children, allowed = _memory("VmHWM"), _children(), _allowed(item)
    # A peak that was there before the test says nothing about it. A child begins with its parent's peak.
    if peak > peak_before and peak - resident > allowed:
        pytest.fail(f"took {(peak - resident) >> 20} MiB of memory, more than {allowed >> 20}", pytrace=False)
    if children > children_before and children - resident > allowed:
        pytest.fail(f"child process took {children >> 20} MiB of memory, more than {allowed >> 20}", pytrace=False)
    return result


def _allowed(item: pytest.Item) -> int:
    return int(item.config.getini("memory_limit_mib")) << 20


def _memory(key: str) -> int:
    """Bytes of resident memory now (VmRSS), at its highest (VmHWM), or mapped (VmData).

    The highest so far where there is no /proc; getrusage alone would not do, since it begins with the parent's peak.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))


def _children() -> int:
    """Highest resident memory, in bytes, of the largest child process that has ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * PEAK_UNIT


def _limit_data(more: int) -> None:
    """Let this process and its later children map at most `more` bytes beyond now; threads' stacks come on top."""
    if sys.platform != "linux":  # only there it counts what is allocated
        return
    stacks = 4 * (os.cpu_count() or 1) * (8 << 20)
    wanted = _memory("VmData") + more + stacks
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
