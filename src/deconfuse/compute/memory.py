"""Memory that arrays give back is kept for the next arrays, where the C library is glibc.

glibc asks the system for every large array and gives it back with the array. A step of training frees and
takes the same arrays again and again, and each time the system fills the new pages with zeros.
"""

import ctypes
import os
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt's, of malloc.h
LARGEST = 2**28  # bytes of an array from which on its memory goes back to the system at once
KEPT = 2**30  # bytes that lie free at the end of a heap before they go back
# What a user sets these by; where one of them is set, the allocator is left alone.
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed() -> bool:
    """Keep what arrays of less than LARGEST bytes give back; True if the allocator of this process does so.

    The process is never larger than what such arrays took at their most, and KEPT bytes and the holes between
    arrays more. False, and nothing is changed, without glibc and where the environment sets its allocator.
    """
    if not _is_glibc() or any(name in os.environ for name in VARIABLES):
        return False
    set_to = ctypes.CDLL(None).mallopt
    return bool(set_to(M_MMAP_THRESHOLD, LARGEST)) and bool(set_to(M_TRIM_THRESHOLD, KEPT))


def give_back() -> None:
    """Give all memory that is free in this process back to the system, where the C library is glibc."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _is_glibc() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") is not None
    except (ValueError, OSError):
        return False
