"""The memory and cores of this machine, and checks of what a user asks of it; without loading torch."""

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
"""Where Linux lists the control groups of this process, and where it keeps their limits."""
_MEMORY_LIMITS = (("", "memory.max"), ("memory", "memory.limit_in_bytes"))
"""(controller, file with the bytes that a group may use); the controller is "" for version 2 of control groups."""
_CPU_LIMITS = (("", ("cpu.max",)), ("cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us")))
"""The same for CPU time: files with the microseconds a group may use in a period, and with the period's length."""
_MOST_MEMORY, _SHARE_OF_MEMORY = 2 * 2**30, 0.8
"""Bytes that restoring uses by default, and the share of a machine's memory that it is at most."""


def system_name() -> str:
    """Such as "Linux 6.1.0 x86_64". (`platform.platform` would start a program.)"""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def half_of_memory() -> float:
    """Bytes: half of this machine's memory, or of what a container may use."""
    return _memory() / 2


def memory_to_use() -> int:
    """Bytes that restoring may use by default: 2 GiB, or 80 % of this machine's memory if that is less."""
    return min(_MOST_MEMORY, int(_SHARE_OF_MEMORY * _memory()))


def _memory() -> float:
    texts = (_read(group / name).strip() for controller, name in _MEMORY_LIMITS for group in _groups(controller))
    names = getattr(os, "sysconf_names", {})
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if "SC_PHYS_PAGES" in names else 8e9
    return min([total, *(float(text) for text in texts if text.isdecimal())])


def _read(file: Path) -> str:
    """The text of a system file; empty where it is missing, or a sandbox does not allow reading it."""
    try:
        return file.read_text()
    except (OSError, ValueError):  # ValueError: a name that the locale cannot encode
        return ""


def _groups(controller: str) -> Iterator[Path]:
    """Folders of this process's control group and all those around it (containers, services, cluster jobs), as the
    limits of each apply."""
    root = _GROUPS / controller
    own = PurePosixPath("/")
    for line in _read(_OWN_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            own = PurePosixPath("/", path)
    for group in (own, *own.parents):
        if ".." not in group.parts:  # such a group lies outside what the container sees
            yield root / group.relative_to("/")


def cores() -> int:
    """CPU cores that this process may run on, or fewer where a container may use only so much of their time."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group, names in ((group, names) for controller, names in _CPU_LIMITS for group in _groups(controller)):
        numbers = " ".join(_read(group / name) for name in names).split()
        if len(numbers) == 2 and all(map(str.isdecimal, numbers)) and int(numbers[1]):  # else there is no limit
            known = min(known, max(math.ceil(int(numbers[0]) / int(numbers[1])), 1))
    return known


def check_precision(precision: str) -> None:
    """Refuse an unknown precision.

    Raises:
        UsageError: not one of PRECISIONS.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


def threads_asked_for() -> int | None:
    """CPU threads that `MDRN_THREADS` asks for, None where it is not set.

    Raises:
        UsageError: it is not a whole number from 1 to MOST_THREADS.
    """
    threads = os.environ.get("MDRN_THREADS", "").strip()
    # More threads than the system can start would end the process.
    if threads and (not threads.isdecimal() or len(threads) > 9 or not 1 <= int(threads) <= MOST_THREADS):
        raise UsageError(f"MDRN_THREADS must be a whole number from 1 to {MOST_THREADS}, not {threads[:40]!r}")
    return int(threads) if threads else None
