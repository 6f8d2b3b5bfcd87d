"""How this process asks the C library for memory."""

from __future__ import annotations

import ctypes

# Parameters of mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT = 8 << 20  # bytes at the end of the heap: what a window needs is not asked for anew, page by page


def lean_malloc(mmap_threshold_bytes: int = 1 << 18) -> bool:
    """Make glibc keep little of what is freed; process-wide, for a program's start, before its threads.

    Large blocks go back to the system at once: glibc raises its own threshold up to 32 MB and keeps what loading a
    graph frees, about half of its size again. The threshold lies below a 768 x 768 weight in int8. All threads share
    one heap: glibc gives each a heap of its own and keeps it, so that every reload and calibration, with its new
    threads, left some behind. False where the C library does not know these.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_MMAP_THRESHOLD, mmap_threshold_bytes), (_TRIM_THRESHOLD, _KEPT), (_ARENA_MAX, 1))
    done = [mallopt(name, value) for name, value in wanted]
    return all(done)
