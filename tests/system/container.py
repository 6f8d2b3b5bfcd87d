"""A real systemd in a container: debootstrap once (kept in .cache), systemd-nspawn for each boot."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache"
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv"
TOOLS = ("debootstrap", "systemd-nspawn", "nsenter")
BOOT_S = 60.0


def why_not() -> str:
    """Why no container can be made here; empty when one can."""
    if os.geteuid() != 0:
        return "needs root for systemd-nspawn"
    missing = [tool for tool in TOOLS if not which(tool)]
    return f"needs {', '.join(missing)} (see tests/system/packages.sh)" if missing else ""


def which(tool: str) -> str | None:
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def base_system() -> Path:
    """A minimal Debian with systemd and Python, made once."""
    root = CACHE / "bookworm"
    if root.is_dir():
        return root
    CACHE.mkdir(exist_ok=True)
    making = CACHE / "bookworm.making"
    shutil.rmtree(making, ignore_errors=True)
    run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(making), timeout=900)
    making.rename(root)
    return root


def run(*command: str, timeout: float = 120, check: bool = True) -> str:
    """Standard output and error of a command on the host; a failure shows both."""
    done = subprocess.run(
        [which(command[0]) or command[0], *command[1:]],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


class Container:
    """Boots `root`; `__call__` runs a command inside; `reboot` is a clean one, `power_cut` is none."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._nspawn: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        self._nspawn = subprocess.Popen(
            [
                which("systemd-nspawn") or "", "-D", str(self.root), "--boot", "--register=no", "--keep-unit",
                "--private-network", "--console=pipe", "--quiet",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.until(
            lambda: self("systemctl", "is-system-running", check=False).strip() in ("running", "degraded"),
            BOOT_S,
        )

    def __call__(self, *command: str, check: bool = True, timeout: float = 120) -> str:
        init = self._init()
        if init is None:
            return ""
        return run("nsenter", "-t", str(init), "-a", *command, check=check, timeout=timeout)

    def reboot(self) -> None:
        self("systemctl", "poweroff", check=False)
        self._wait()
        self.boot()

    def power_cut(self) -> None:
        assert self._nspawn is not None
        init = self._init()
        if init is not None:
            os.kill(init, 9)  # the kernel takes everything in the container with its init
        self._wait()
        self.boot()

    def close(self) -> None:
        if self._nspawn is not None and self._nspawn.poll() is None:
            self("systemctl", "poweroff", check=False)
            self._wait()

    def until(self, condition, limit_s: float, what: str = "the container's answer") -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {limit_s:g} s in vain for {what}"
            assert self._nspawn is not None
            assert self._nspawn.poll() is None, "the container ended"
            time.sleep(0.3)

    def _init(self) -> int | None:
        assert self._nspawn is not None
        found = subprocess.run(["pgrep", "-P", str(self._nspawn.pid)], capture_output=True, text=True).stdout.split()
        return int(found[0]) if found else None

    def _wait(self) -> None:
        assert self._nspawn is not None
        try:
            self._nspawn.wait(40)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
