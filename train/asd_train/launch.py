"""`accelerate launch --cpu --num_processes N` starts one process only and says nothing; here it becomes N."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path


def use_all_processes() -> None:
    """Replace this process by torchrun with as many as accelerate was asked for. Returns where that is done already,
    or where nobody asked."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() != "true" or "WORLD_SIZE" in os.environ:
        return
    count = asked_processes(_parent_command())
    if count > 1:
        run = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        os.execv(sys.executable, [sys.executable, *run, "-m", "asd_train", *sys.argv[1:]])


def asked_processes(command: str) -> int:
    """N of `accelerate launch ... --num_processes N ...`, words apart by spaces; 1 where it does not say."""
    found = re.search(r"\blaunch\b.*?--num[_-]processes[ =](\d+)", command)
    return int(found[1]) if found else 1


def _parent_command() -> str:
    try:
        raw = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return ""
    return raw.decode(errors="replace").replace("\0", " ")
