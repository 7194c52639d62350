"""What this machine has, and what a user may ask of it, checked; without loading torch."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from mdrn_cli.errors import UsageError

PRECISIONS = ("auto", "bfloat16", "float32")
MOST_THREADS = 1024
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Files in which Linux says what a container may use, of both versions of control groups."""


def system_name() -> str:
    """Such as "Linux 6.1.0 x86_64". (What `platform.platform` gives starts a program.)"""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def half_of_memory() -> float:
    """Bytes: half of this machine's memory, or of what a container may use."""
    names = getattr(os, "sysconf_names", {})
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if "SC_PHYS_PAGES" in names else 8e9
    texts = (file.read_text().strip() for file in _MEMORY_LIMITS if file.is_file())
    return min([total, *(float(text) for text in texts if text.isdecimal())]) / 2


def check_precision(precision: str) -> None:
    """Refuse a precision that there is not.

    Raises:
        UsageError: not one of PRECISIONS.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


def threads_asked_for() -> int | None:
    """CPU threads that `MDRN_THREADS` says, None where it is not set.

    Raises:
        UsageError: it is not a whole number from 1 to MOST_THREADS.
    """
    threads = os.environ.get("MDRN_THREADS", "").strip()
    # So many that the system cannot start them would end the process.
    if threads and (not threads.isdecimal() or len(threads) > 9 or not 1 <= int(threads) <= MOST_THREADS):
        raise UsageError(f"MDRN_THREADS must be a whole number from 1 to {MOST_THREADS}, not {threads[:40]!r}")
    return int(threads) if threads else None
