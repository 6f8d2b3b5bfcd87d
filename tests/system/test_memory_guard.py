"""The memory guard of tests/conftest.py catches a test that takes too much."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
TESTS = """
import subprocess, sys

def test_small():
    assert len(bytearray(1 << 20)) == 1 << 20

def test_large():
    assert len(b"x" * (100 << 20)) == 100 << 20

def test_large_that_is_caught():
    try:
        bytearray(1 << 40)
    except MemoryError:
        return
    raise AssertionError("no limit")

def test_small_again():
    assert len(bytearray(1 << 20)) == 1 << 20

def test_child():
    subprocess.run([sys.executable, "-c", "len(b'x' * (150 << 20))"], check=True)
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_guard_fails_what_takes_too_much(tmp_path: Path, workers: str) -> None:
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_memory.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-n", workers, "-o", "memory_limit_mib=64", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    outcome = {line.split("::")[1].split()[0]: line for line in done.stdout.splitlines() if line.startswith("ERROR")}
    assert set(outcome) == {"test_large", "test_child"}, done.stdout[-3000:]
    assert "Failed: took" in outcome["test_large"]
    assert "child process took" in outcome["test_child"]
    assert "5 passed, 2 errors" in done.stdout
