"""What this machine has, and what a user may ask of it, checked; without loading torch."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mdrn_cli.errors import UsageError

PRECISIONS = ("auto", "bfloat16", "float32")
MOST_THREADS = 1024
_OWN_GROUPS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""Where Linux says of which control groups this process is, and what those may use."""
_MEMORY_LIMITS = (("", "memory.max"), ("memory", "memory.limit_in_bytes"))
"""By controller, "" of the second version: the file with the bytes that a group may use."""
_CPU_LIMITS = (("", ("cpu.max",)), ("cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us")))
"""The same of processors: microseconds in a period, and those of the period."""
_MOST_MEMORY, _SHARE_OF_MEMORY = 2 * 2**30, 0.8
"""Bytes that restoring uses unless more is given, and how much of a smaller machine's."""


def system_name() -> str:
    """Such as "Linux 6.1.0 x86_64". (What `platform.platform` gives starts a program.)"""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def half_of_memory() -> float:
    """Bytes: half of this machine's memory, or of what a container may use."""
    return _memory() / 2


def memory_to_use() -> int:
    """Bytes that restoring may use unless it is told: 2 GiB, or less where that is too much for this machine."""
    return min(_MOST_MEMORY, int(_SHARE_OF_MEMORY * _memory()))


def _memory() -> float:
    texts = (_read(group / name).strip() for controller, name in _MEMORY_LIMITS for group in _groups(controller))
    names = getattr(os, "sysconf_names", {})
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if "SC_PHYS_PAGES" in names else 8e9
    return min([total, *(float(text) for text in texts if text.isdecimal())])


def _read(file: Path) -> str:
    """What the system tells in a file; nothing where there is none, or a sandbox does not let one read it."""
    try:
        return file.read_text()
    except (OSError, ValueError):  # the latter of a name that the locale has no characters for
        return ""


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups that a process is in, of containers, services and jobs of a cluster: each may use
    no more than those around it."""
    root = _GROUPS / controller
    own = PurePosixPath("/")
    for line in _read(_OWN_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            own = PurePosixPath("/", path)
    for group in (own, *own.parents):
        if ".." not in group.parts:  # of one that lies outside what the container sees
            yield root / group.relative_to("/")


def cores() -> int:
    """CPU cores this process may run on, or as many as the time that a container may use them for is worth."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group, names in ((group, names) for controller, names in _CPU_LIMITS for group in _groups(controller)):
        numbers = " ".join(_read(group / name) for name in names).split()
        if len(numbers) == 2 and all(map(str.isdecimal, numbers)) and int(numbers[1]):  # else there is no limit
            known = min(known, max(math.ceil(int(numbers[0]) / int(numbers[1])), 1))
    return known


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
