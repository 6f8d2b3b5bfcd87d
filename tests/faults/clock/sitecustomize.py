"""In front of PYTHONPATH of a process: its wall clock is shifted by the seconds in the file $ASD_TEST_CLOCK.

The file may change at any time, as the clock of a host does. The monotonic clock is not touched. (libfaketime 0.9.10
makes every time.sleep of Python 3.11 fail.)
"""

import os
import time

_real, _real_ns = time.time, time.time_ns


def _shift_s() -> int:
    try:
        with open(os.environ["ASD_TEST_CLOCK"]) as file:
            return int(file.read() or 0)
    except (OSError, ValueError, KeyError):
        return 0


time.time = lambda: _real() + _shift_s()
time.time_ns = lambda: _real_ns() + _shift_s() * 10**9
