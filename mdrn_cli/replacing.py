"""Makes sure that writing a result loses nothing: checks before the work, and again just before a file is replaced."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from mdrn_cli.errors import InputError, UsageError
from mdrn_cli.files import write_atomically
from mdrn_cli.naming import Job, is_result, kept, refuse_present
from mdrn_cli.outcome import FAILED, SKIPPED, Outcome
from mdrn_cli.paths import behind_link, exists, is_link, stamp_of
from mdrn_cli.picture import Picture
from mdrn_cli.pipes import PIPE


def appeared(job: Job) -> Outcome | None:
    """The outcome of a job whose result has come to exist since the plan, usually by another process."""
    if job.existing == "overwrite" or not (exists(job.target) or is_link(job.target)):
        return None
    if job.existing == "skip" and is_result(job.target):
        return Outcome(replace(job, skip=kept(job.target)), SKIPPED)
    try:
        refuse_present(job.target, job.existing)
    except UsageError as error:
        return Outcome(job, FAILED, error)
    return None


class OvertakenError(Exception):
    """Another process has made the result."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def refuse_overtaken(job: Job, stamp: tuple[int, ...]) -> None:
    """Refuse a result, just before it is put in place, if something would be lost.

    Raises:
        OvertakenError: there is one already.
        InputError: it would replace an input that has been changed.
    """
    if outcome := appeared(job):
        raise OvertakenError(outcome)
    if job.target == job.source:
        refuse_changed(job, stamp)


def keep_original(job: Job, stamp: tuple[int, ...]) -> None:
    """Keep an input that is about to be replaced under its backup name: as a hard link, where the file system has such,
    else as a copy. A backup from an earlier run stays.

    Args:
        job: the job.
        stamp: of the input, see `refuse_changed`.

    Raises:
        MdrnError: it cannot be kept.
        InputError: it has been changed.
    """
    if job.backup is None or exists(job.backup):
        return
    original = behind_link(job.source)
    try:
        os.link(original, job.backup)
    except FileExistsError:
        pass
    except OSError:
        about = original.stat()
        with suppress(FileExistsError):
            write_atomically(job.backup, read_again(job, stamp), partial(_refuse_backup, job.backup), (original,))
            os.utime(job.backup, ns=(about.st_atime_ns, about.st_mtime_ns))


def _refuse_backup(path: Path) -> None:
    """Leave what another run has kept while a copy was made."""
    if exists(path):
        raise FileExistsError(path)


def refuse_loss(job: Job, picture: Picture) -> None:
    """Refuse to replace an input by a result that holds less.

    Raises:
        InputError: the result would hold less.
    """
    behind = picture.metadata.left_behind
    if behind and job.is_sparing and job.target == job.source:
        raise InputError(
            f"{job.source} holds {behind[0]}, and its result would not",
            "name an output, or replace it all the same with --in-place --overwrite",
        )


def refuse_changed(job: Job, stamp: tuple[int, ...]) -> None:
    """Refuse an input that has changed.

    Args:
        job: the job.
        stamp: its file's earlier stamp (see `stamp_of`).

    Raises:
        InputError: the file has changed.
    """
    if job.source != PIPE and stamp_of(job.source) != stamp:
        raise InputError(f"{job.source} was changed while it was being denoised", "run it again")


def read_again(job: Job, stamp: tuple[int, ...]) -> bytes:
    """The content of a job's file, unchanged since it was read first.

    Raises:
        InputError: it has changed, or cannot be read any more.
    """
    try:
        content = job.source.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {job.source} ({error.strerror or error})") from error
    refuse_changed(job, stamp)
    return content
