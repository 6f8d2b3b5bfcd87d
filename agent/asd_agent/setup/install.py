"""Puts configuration, credential and unit where they belong; each is written whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from asd_agent.errors import AsdError
from asd_agent.files import write_whole

UNIT = "asd-agent.service"
COMMAND = "/opt/asd-agent/bin/asd-agent"  # as the shipped unit names it


@dataclass(frozen=True)
class Places:
    """Where things go; `root` is for tests and images."""

    root: Path = Path("/")

    @property
    def configuration(self) -> Path:
        return self.root / "etc/asd-agent/agent.yaml"

    @property
    def credential(self) -> Path:
        return self.root / "etc/credstore/mqtt-password"

    @property
    def unit(self) -> Path:
        return self.root / "etc/systemd/system" / UNIT

    @property
    def packaged_units(self) -> list[Path]:
        """Units that a Debian package has installed; then none is written."""
        return [self.root / folder / UNIT for folder in ("usr/lib/systemd/system", "lib/systemd/system")]


def unit(command: str = "") -> str:
    """The text of the systemd unit that starts `command` (default: the `asd-agent` of this installation)."""
    shipped = resources.files("asd_agent") / "setup" / UNIT
    if not shipped.is_file():  # an editable installation: the file lies in the repository
        shipped = Path(__file__).resolve().parents[3] / "systemd" / UNIT
    return shipped.read_text(encoding="utf-8").replace(COMMAND, command or _this_command())


def install(text: str, password: str | None, places: Places = Places(), *, start: bool = True) -> list[str]:
    """Write the configuration, the broker's password and the unit, and start the service; what was done, line by line.

    An existing configuration is kept beside the new one as agent.yaml.old. Raises AsdError.
    """
    done = []
    if places.configuration.exists():
        old = places.configuration.with_suffix(".yaml.old")
        shutil.copy2(places.configuration, old)
        done.append(f"kept the old configuration as {old}")
    write(places.configuration, text, 0o644)
    done.append(f"wrote {places.configuration}")
    if password:
        write(places.credential, password + "\n", 0o600)
        done.append(f"wrote {places.credential} (root only)")
    if not any(path.exists() for path in places.packaged_units):
        write(places.unit, unit(), 0o644)
        done.append(f"wrote {places.unit}")
    if start:
        _systemctl("daemon-reload")
        _systemctl("enable", UNIT)
        _systemctl("restart", UNIT)
        done.append("started asd-agent; it starts with the computer from now on")
    return done


def write(path: Path, text: str, mode: int) -> None:
    """A file that nobody else may read before its mode is right. Raises AsdError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = os.umask(0o777 & ~mode)
        try:
            write_whole(path, text.encode())
        finally:
            os.umask(before)
    except OSError as exc:
        raise AsdError(f"{path}: cannot be written ({exc.strerror or exc})") from exc


def systemd_runs() -> bool:
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


def _this_command() -> str:
    beside = Path(sys.executable).with_name("asd-agent")
    return str(beside) if beside.exists() else shutil.which("asd-agent") or COMMAND


def _systemctl(*words: str) -> None:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise AsdError(f"systemctl {' '.join(words)}: {said[-1]}; look at: journalctl -u asd-agent")
