"""Denoising files: the jobs of `jobs` done, with reading, restoring and writing overlapped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import ParamSpec, TypeVar

from mdrn_cli.content import kind_of_file
from mdrn_cli.encoding import SaveOptions, encode_picture, layout_of, refuse_unwritable
from mdrn_cli.errors import DeviceError, OutOfMemoryError
from mdrn_cli.files import as_mdrn_error, remove_leftovers, write_atomically
from mdrn_cli.formats import FORMATS, kind_of
from mdrn_cli.image import read_picture
from mdrn_cli.interrupts import INTERRUPTIONS
from mdrn_cli.naming import Job
from mdrn_cli.outcome import DONE, FAILED, CallbackError, OnOutcome, Outcome, Pending, finished_future, foresee
from mdrn_cli.passes import has_room
from mdrn_cli.paths import behind_link, stamp_of
from mdrn_cli.picture import Picture
from mdrn_cli.pipes import PIPE, readable, write_stdout
from mdrn_cli.replacing import (
    OvertakenError,
    appeared,
    keep_original,
    read_again,
    refuse_changed,
    refuse_loss,
    refuse_overtaken,
)
from mdrn_cli.restore import DenoiseOptions, Facts, Restorer
from mdrn_cli.tilewise import OnTile

OnRestored = Callable[[Picture, Picture], None]
"""Called with (picture, restored picture)."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def run_jobs(
    jobs: Sequence[Job],
    options: DenoiseOptions,
    *,
    on_start: Callable[[Job], None] | None = None,
    on_tile: OnTile | None = None,
    fail_fast: bool = False,
    save: SaveOptions | None = None,
    on_restored: OnRestored | None = None,
    on_outcome: OnOutcome | None = None,
) -> Iterator[Outcome]:
    """Do the jobs, yielding each outcome before the picture after the next is computed. A failure does not stop the
    rest.

    The next pictures are read and finished ones encoded and written in other threads, so the processor that
    computes the network does not wait. Results appear whole or not at all, but for one on standard output.

    Args:
        jobs: from `plan_jobs`.
        options: how to denoise.
        on_start: called with a job before it is computed.
        on_tile: called with (tiles done, tiles in all) of the picture under way.
        fail_fast: stop at the first failure.
        save: how results are written.
        on_restored: called with (picture, restored picture), in another thread, once the result is written.
        on_outcome: called with each outcome once it is known, while the next picture is computed after the tile under
            way. What it raises ends the run.

    Raises:
        BrokenPipeError: nobody reads standard output.
        DeviceError: there is no such device.
        UsageError, WeightsError: nothing can be denoised as asked, whatever the picture: see `Denoisers`.
    """
    restore = Restorer(options)
    finish = _Finish(save or SaveOptions(), on_restored)
    todo = [job for job in jobs if not foresee(job)]
    for folder in {behind_link(job.target).parent for job in todo if job.target != PIPE}:
        remove_leftovers(folder)
    writing = Pending(on_outcome, fail_fast)
    yield from _foreseen(jobs, writing)
    if writing.is_given_up():
        return
    with _executor(jobs) as reader, _executor(jobs) as writer:
        ahead: Future[_Input] | None = None

        def on_progress(done: int, total: int) -> None:
            if on_tile:
                on_tile(done, total)
            writing.tell()

        try:
            for job, following in zip_longest(todo, todo[1:]):
                yield from writing.finished(everything=ahead is None)  # beside which there was no room to read another
                if writing.is_given_up():
                    break
                given = ahead or reader.submit(_read, job)
                overlapping = _overlaps(given, options.memory)
                ahead = reader.submit(_read, following) if following and overlapping else None
                yield from writing.finished(everything=not overlapping)
                if writing.is_given_up():
                    break
                if on_start:
                    on_start(job)
                writing.add(_restore(job, given, restore, on_progress, writer, finish))
                del given  # the picture as read, for whose room its result may wait
            yield from writing.finished(everything=True)
            yield from writing.under_way()
        except CallbackError as raised:
            raise raised.error from None
        except (*INTERRUPTIONS, DeviceError):
            yield from writing.under_way()
            raise
        finally:
            if ahead:
                ahead.cancel()
            writing.cancel()


def _foreseen(jobs: Sequence[Job], told: Pending) -> Iterator[Outcome]:
    """Outcomes of the jobs that need not be run; failures come last."""
    for outcome in sorted(filter(None, map(foresee, jobs)), key=lambda outcome: outcome.status == FAILED):
        told.add(finished_future(outcome))
        yield from told.finished(everything=True)
        if told.is_given_up():
            return


def _executor(jobs: Sequence[Job]) -> Executor:
    return _InTurn() if any(PIPE in (job.source, job.target) for job in jobs) else ThreadPoolExecutor(1)


class _InTurn(Executor):
    """Runs what is submitted at once in this thread, so that Ctrl-C can end the wait for the other end of a pipe."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        future: Future[_T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class _Input:
    """A picture as read: its source, its format, its file's stamp at that time (see `stamp_of`), the seconds taken."""

    picture: Picture
    source: Path | bytes
    kind: str | None
    stamp: tuple[int, ...]
    seconds: float


def _read(job: Job) -> _Input:
    began = time.perf_counter()
    stamp = stamp_of(job.source)
    source = readable(job.source)
    picture, kind = read_picture(source), kind_of_file(source)
    refuse_changed(job, stamp)
    return _Input(picture, source, kind, stamp, time.perf_counter() - began)


def _overlaps(given: Future[_Input], memory: int) -> bool:
    """Whether there is room to read and write other pictures while this one is restored; waits until it is read."""
    return given.exception() is not None or has_room(given.result().picture, memory)


def _kind_of_result(job: Job, given: _Input) -> str:
    """The format of a job's result. A file that is replaced keeps its format whatever its name says: a PNG named .jpg
    would lose by becoming a JPEG."""
    return given.kind or job.kind if job.target == job.source != PIPE else job.kind


def _misnamed(job: Job, given: _Input) -> tuple[str, ...]:
    """A warning where the input's content is not of the format that its name says, while the result's will be."""
    named = FORMATS.get(job.source.suffix.lower())
    if given.kind in (None, named) or named != job.kind or job.source == PIPE:
        return ()
    return (f"the input is {given.kind} by its content, and its result {job.kind} by its name",)


def _restore(
    job: Job,
    reading: Future[_Input],
    restore: Restorer,
    on_tile: OnTile,
    writer: Executor,
    finish: _Finish,
) -> Future[Outcome]:
    """Restore one picture and hand it to the writer; the future's result is the outcome."""
    if outcome := appeared(job):
        return finished_future(outcome)
    try:
        given = reading.result()
        job = replace(job, kind=_kind_of_result(job, given))
        refuse_loss(job, given.picture)
        refuse_unwritable(given.picture, job.kind, finish.save)
        began = time.perf_counter() - restore.loading
        restored, facts = restore(given.picture, on_tile)
        spent = given.seconds + time.perf_counter() - restore.loading - began
    except OutOfMemoryError as error:
        return finished_future(Outcome(job, FAILED, error))
    except DeviceError:
        raise  # there is no such device for the other pictures either
    except Exception as error:
        return finished_future(Outcome(job, FAILED, as_mdrn_error(error, job.source, "read")))
    restored = replace(restored, warnings=restored.warnings + _misnamed(job, given))
    result = _Result(
        restored,
        facts,
        given.stamp,
        # The picture as read is not kept unless it is still needed: encoding takes its room.
        before=replace(given.picture, white=restored.white) if finish.on_restored else None,
        same_as=given.source if restored.channels is given.picture.channels else None,
        told=restored.warnings[len(given.picture.warnings) :],
        seconds=spent,
    )
    return writer.submit(finish, job, result)


@dataclass(frozen=True)
class _Result:
    """A restored picture to be written.

    Attributes:
        facts: what was done.
        stamp: of the input file when it was read.
        before: the picture as read, if `on_restored` needs it.
        same_as: the source, where nothing was done.
        told: warnings of restoring, without those of reading.
        seconds: spent so far.
    """

    picture: Picture
    facts: Facts
    stamp: tuple[int, ...]
    before: Picture | None
    same_as: Path | bytes | None
    told: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class _Finish:
    """The last step of a job: encodes and writes its result."""

    save: SaveOptions
    on_restored: OnRestored | None

    def __call__(self, job: Job, result: _Result) -> Outcome:
        began = time.perf_counter()
        check = partial(refuse_overtaken, job, result.stamp)
        try:
            content, facts, warnings = self._content(job, result)
            check()
            if content is not None:
                _write(job, content, result.stamp, check)
        except BrokenPipeError:
            raise
        except OvertakenError as overtaken:
            return overtaken.outcome
        except Exception as error:
            return Outcome(job, FAILED, as_mdrn_error(error, job.target, "write"))
        if self.on_restored and result.before:
            self.on_restored(result.before, result.picture)
        return Outcome(job, DONE, None, facts, warnings, result.seconds + time.perf_counter() - began)

    def _content(self, job: Job, result: _Result) -> tuple[bytes | None, Facts, tuple[str, ...]]:
        """What to write (None: nothing), what was done, and warnings. A file to which nothing was done is copied as it
        is, for a JPEG would lose by being encoded again, or stays in place if it is its own result."""
        if result.same_as and self.save.ask_nothing_of(result.picture, job.kind):
            same = result.same_as if isinstance(result.same_as, bytes) else read_again(job, result.stamp)
            if kind_of(same) == job.kind:
                in_place = job.target == job.source != PIPE
                return None if in_place else same, result.facts, result.told
        content, lost = encode_picture(result.picture, job.kind, self.save)
        facts = replace(result.facts, **layout_of(result.picture, job.kind, self.save)._asdict())
        return content, facts, result.picture.warnings + lost


def _write(job: Job, content: bytes, stamp: tuple[int, ...], check: Callable[[], None]) -> None:
    if job.target == PIPE:
        write_stdout(content)
        return

    def before_replacing() -> None:
        check()
        keep_original(job, stamp)

    job.target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(job.target, content, before_replacing, like=() if job.source == PIPE else (job.source,))
