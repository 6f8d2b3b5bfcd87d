"""Become another program that ends with its parent: `python -I -S tether.py PARENT_PID ARGV...`.

Run as a file by the parent (no package import, 15 ms), then replaced by ARGV. The kernel keeps the
parent-death signal over exec. Not a preexec_fn, because the daemon has threads when it starts children.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1
CANNOT_RUN = 127


def main(argv: list[str]) -> int:
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (ImportError, OSError, AttributeError, MemoryError):
        pass  # MemoryDenyWriteExecute can forbid ctypes; under systemd the control group ends children anyway
    if os.getppid() != int(argv[0]):
        return 0  # the parent died before the kernel knew
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and that would be inherited
    try:
        os.execvp(argv[1], argv[1:])
    except OSError as exc:
        print(f"cannot run {argv[1]!r}: {exc.strerror}", file=sys.stderr)
    return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
