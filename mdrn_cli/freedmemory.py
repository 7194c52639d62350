"""What glibc does with memory that tensors and pictures have left."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensor. By default it hands blocks of megabytes back to the system,
    and every convolution then waits for fresh, zeroed pages: with tiles of 512x512, a third of the time. No other
    system needs this."""
    if libc := _glibc():
        # Whole pictures, which are larger than features of a tile, are still handed back. Older versions of glibc take
        # 32 MiB at most, and without it the next call would leave the threshold at 128 KiB for good.
        if not libc.mallopt(_M_MMAP_THRESHOLD, 2**28):
            libc.mallopt(_M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**30)


def release_freed_memory() -> None:
    """Hand back to the system what `keep_freed_memory` has kept, before something else needs the room."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
