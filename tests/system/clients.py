"""Real clients from npm and PyPI, installed once per machine into the temporary folder; a test skips without them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

CACHE = Path(tempfile.gettempdir()) / "asd-agent-test-clients"
PATIENCE_S = 900


def npm(*packages: str) -> Path:
    """The folder whose node_modules hold the packages ("name@version"). Skips where they cannot be installed."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    folder = CACHE / "-".join(p.replace("/", "_").replace("@", "_") for p in packages)
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _install(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *packages])
        (folder / "complete").touch()
    return folder


def node(folder: Path, script: str, *, stdin: bytes = b"", timeout_s: float = 120) -> bytes:
    """Run a CommonJS script beside the installed packages; its standard output."""
    done = subprocess.run(["node", "-e", script], cwd=folder, input=stdin, capture_output=True, timeout=timeout_s)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout


def python(version: str, *packages: str) -> Path:
    """The interpreter of a virtual environment with the packages. Skips where it cannot be made."""
    base = _interpreter(version)
    folder = CACHE / "-".join([f"py{version}", *packages])
    interpreter = folder / "bin" / "python"
    if not (folder / "complete").exists():
        _install([base, "-m", "venv", "--clear", str(folder)])
        _install([str(interpreter), "-m", "pip", "install", "--quiet", *packages])
        (folder / "complete").touch()
    return interpreter


def _interpreter(version: str) -> str:
    candidates = [f"python{version}"]
    if shutil.which("pyenv"):
        prefix = subprocess.run(["pyenv", "prefix", version], capture_output=True, text=True)
        candidates.append(f"{prefix.stdout.strip()}/bin/python{version}")
    for candidate in candidates:
        found = shutil.which(candidate)
        if found and subprocess.run([found, "-c", "import venv, ssl"], capture_output=True).returncode == 0:
            return found
    pytest.skip(f"needs python{version}")


def _install(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"not installed within {PATIENCE_S} s: {' '.join(command)}")
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        pytest.skip(f"cannot be installed here: {' '.join(command[-3:])}: {last}")
