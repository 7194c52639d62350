"""What a user may ask of the hardware, checked without loading torch."""

from __future__ import annotations

import os

from mdrn_cli.errors import UsageError

PRECISIONS = ("auto", "bfloat16", "float32")
MOST_THREADS = 1024


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
