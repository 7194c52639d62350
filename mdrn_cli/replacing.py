"""That nothing is lost by a result: what is seen to before it takes its place, and once more as it does."""

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
    """What becomes of a job whose result has been made since the plan, by another process as a rule."""
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
    """See, before a result takes its place, that nothing is lost by that.

    Raises:
        OvertakenError: there is one already.
        InputError: it would replace an input that has been changed.
    """
    if outcome := appeared(job):
        raise OvertakenError(outcome)
    if job.target == job.source:
        refuse_changed(job, stamp)


def keep_original(job: Job, stamp: tuple[int, ...]) -> None:
    """Keep an input that is about to be replaced, under another name: as another link to it, where the file system has
    such, else as a copy. What is kept of an earlier run stays.

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
    """See that an input is not replaced by less than it holds.

    Raises:
        InputError: it would be.
    """
    behind = picture.metadata.left_behind
    if behind and job.is_sparing and job.target == job.source:
        raise InputError(
            f"{job.source} holds {behind[0]}, and its result would not",
            "name an output, or replace it all the same with --in-place --overwrite",
        )


def refuse_changed(job: Job, stamp: tuple[int, ...]) -> None:
    """See that an input is what it was.

    Args:
        job: the job.
        stamp: of its file, as it was (see `stamp_of`).

    Raises:
        InputError: it is not.
    """
    if job.source != PIPE and stamp_of(job.source) != stamp:
        raise InputError(f"{job.source} was changed while it was being denoised", "run it again")


def read_again(job: Job, stamp: tuple[int, ...]) -> bytes:
    """The content of a job's file, which is what it was.

    Raises:
        InputError: it is not, or cannot be read any more.
    """
    try:
        content = job.source.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {job.source} ({error.strerror or error})") from error
    refuse_changed(job, stamp)
    return content
