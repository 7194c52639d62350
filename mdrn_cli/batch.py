"""Denoising files: what is to be done is decided first, then done with reading, restoring and writing overlapped."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mdrn_cli.encoding import SaveOptions, encode_picture, format_of, refuse_unwritable
from mdrn_cli.errors import InputError, MdrnError, OutOfMemoryError, UsageError
from mdrn_cli.files import exists, is_folder, real_path, remove_leftovers, write_atomically, write_error
from mdrn_cli.image import FORMATS, find_images, read_picture
from mdrn_cli.picture import Picture
from mdrn_cli.restore import DenoiseOptions, Facts, OnTile, Restorer

OUTPUT_SUFFIX = "_mdrn"
LOOKAHEAD = 1
"""Pictures read ahead, and results waiting to be written: enough to keep the network busy, and no more memory."""
DONE, SKIPPED, FAILED = "done", "skipped", "failed"

OnRestored = Callable[[Picture, Picture], None]
"""Called with (picture, restored picture)."""


@dataclass(frozen=True)
class Naming:
    """Where results go.

    Args:
        output: file or folder; None puts each result beside its input, `_mdrn` added to the name.
        in_place: replace the inputs.
        suffix: such as ".png"; None keeps the input's.
        existing: what to do where a result exists already: "error", "skip" or "overwrite".
        recursive: whether folders are searched at any depth.
    """

    output: Path | None = None
    in_place: bool = False
    suffix: str | None = None
    existing: str = "error"
    recursive: bool = False

    def __post_init__(self) -> None:
        if self.in_place and (self.output or self.suffix):
            raise UsageError("--in-place excludes --output and --format")
        if self.suffix and self.suffix not in FORMATS:
            raise UsageError(f"no format {self.suffix[1:]!r}", f"formats are: {', '.join(sorted(FORMATS))}")


@dataclass(frozen=True)
class Job:
    """One input and where its result goes.

    Attributes:
        source: the input.
        target: where its result goes.
        skip: whether the result exists already and is kept.
        existing: what to do where it has come to exist by the time it would be written: see Naming.
        problem: why nothing can come of it, where that is known beforehand.
    """

    source: Path
    target: Path
    skip: bool = False
    existing: str = "overwrite"
    problem: MdrnError | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: the job.
        status: "done", "skipped" or "failed".
        error: why it failed.
        facts: what was done.
        warnings: what could not be kept as it was.
        seconds: from reading begun to result written, time spent on other jobs not counted.
    """

    job: Job
    status: str
    error: MdrnError | None = None
    facts: Facts | None = None
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


def plan_jobs(inputs: Sequence[Path], naming: Naming) -> list[Job]:
    """Decide what is to be done, before anything is.

    Args:
        inputs: files, and folders (whose tree is mirrored under the output folder).
        naming: where results go.

    Raises:
        UsageError: two results would have one name, a result exists already, an output folder is missing or
            its format unknown.
        InputError: a folder holds no images.
    """
    jobs: list[Job] = []
    into_folder = len(inputs) > 1 or is_folder(inputs[0]) or (naming.output is not None and is_folder(naming.output))
    if into_folder and naming.output is not None and exists(naming.output) and not is_folder(naming.output):
        raise UsageError(f"{naming.output} is a file; several results need a folder")
    for source in inputs:
        if is_folder(source):
            jobs += _plan_folder(source, naming)
        else:
            jobs.append(_plan_file(source, source.name, naming, into_folder, naming.existing))
    _refuse_collisions(jobs)
    return jobs


def _plan_folder(folder: Path, naming: Naming) -> list[Job]:
    unreadable: list[OSError] = []
    files = find_images(folder, naming.recursive, unreadable.append)
    if naming.output is not None:
        files = [f for f in files if not f.is_relative_to(naming.output)]
    elif not naming.in_place:
        names = set(files)
        files = [f for f in files if not _is_result(f, names)]
    if not files and not unreadable:
        raise InputError(f"no images in {folder}", "" if naming.recursive else "use --recursive for nested folders")
    existing = "skip" if naming.existing == "error" else naming.existing
    jobs = [_plan_file(f, f.relative_to(folder).as_posix(), naming, True, existing) for f in files]
    return jobs + [_unlisted(error) for error in unreadable]


def _unlisted(error: OSError) -> Job:
    """The job of a folder whose images cannot be known, so that it is told of with the failures."""
    folder = Path(error.filename)
    return Job(folder, folder, problem=InputError(f"cannot list {folder} ({error.strerror})"))


def _is_result(file: Path, names: set[Path]) -> bool:
    """Whether a file was made by an earlier run beside its input, so that it is not taken for an input."""
    stem = file.stem.removesuffix(OUTPUT_SUFFIX)
    return stem != file.stem and any(file.with_name(stem + suffix) in names for suffix in FORMATS)


def _plan_file(source: Path, name: str, naming: Naming, into_folder: bool, existing: str) -> Job:
    if naming.in_place:
        format_of(source)
        return Job(source, source)
    if naming.output is None:
        target = source.with_name(f"{source.stem}{OUTPUT_SUFFIX}{source.suffix}")
    else:
        target = naming.output / name if into_folder else naming.output
    if naming.suffix and (into_folder or naming.output is None):
        target = target.with_suffix(naming.suffix)
    format_of(target)
    if naming.output is not None and not into_folder and not is_folder(target.parent):
        raise UsageError(f"no folder {target.parent} to write to", "create it first")
    if exists(target) and existing == "error":
        raise _exists_already(target)
    return Job(source, target, existing == "skip" and exists(target), existing)


def _exists_already(target: Path) -> UsageError:
    return UsageError(f"{target} exists already", "use --overwrite to replace it, --skip-existing to keep it")


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    sources: dict[Path, Path] = {}
    inputs = {real_path(job.source) for job in jobs}
    for job in jobs:
        target = real_path(job.target)
        if target in sources:
            raise UsageError(
                f"{sources[target]} and {job.source} would both be written to {job.target}", "give them other names"
            )
        if target in inputs and job.target != job.source and not job.skip:
            raise UsageError(f"the result of {job.source} would replace the input {job.target}")
        sources[target] = job.source


def run_jobs(
    jobs: Sequence[Job],
    options: DenoiseOptions,
    on_start: Callable[[Job], None] | None = None,
    on_tile: OnTile | None = None,
    fail_fast: bool = False,
    save: SaveOptions | None = None,
    on_restored: OnRestored | None = None,
) -> Iterator[Outcome]:
    """Do the jobs, giving each outcome as soon as its result is on disk; one that fails does not stop the rest.

    The next pictures are read and finished ones encoded and written in other threads, so the processor that
    computes the network does not wait. Results appear whole or not at all.

    Args:
        jobs: from `plan_jobs`.
        options: how to denoise.
        on_start: called with a job before it is computed.
        on_tile: called with (tiles done, tiles in all) of the picture under way.
        fail_fast: stop at the first failure.
        save: how results are written.
        on_restored: called with (picture, restored picture), in another thread, before the result is written.
    """
    restore = Restorer(options)
    finish = _Finish(save or SaveOptions(), on_restored)
    todo = [job for job in jobs if not job.skip and not job.problem]
    for folder in {job.target.parent for job in todo}:
        remove_leftovers(folder)
    yield from (Outcome(job, SKIPPED) for job in jobs if job.skip)
    for job in jobs:
        if job.problem:
            yield Outcome(job, FAILED, job.problem)
            if fail_fast:
                return
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        reading: deque[Future[_Input]] = deque()
        writing: deque[Future[Outcome]] = deque()
        try:
            for k, job in enumerate(todo):
                while len(reading) <= LOOKAHEAD and k + len(reading) < len(todo):
                    reading.append(reader.submit(_read, todo[k + len(reading)]))
                if on_start:
                    on_start(job)
                writing.append(_restore(job, reading.popleft(), restore, on_tile, writer, finish))
                while writing and (len(writing) > LOOKAHEAD or writing[0].done()):
                    outcome = _released(writing.popleft().result())
                    yield outcome
                    if fail_fast and outcome.status == FAILED:
                        return
            while writing:
                yield _released(writing.popleft().result())
        finally:
            for read in reading:
                read.cancel()
            for write in writing:
                write.cancel()


@dataclass(frozen=True)
class _Input:
    """A picture read, what its file was then (see `_stamp`), and the seconds it took."""

    picture: Picture
    stamp: tuple[int, ...]
    seconds: float


def _read(job: Job) -> _Input:
    began = time.perf_counter()
    stamp = _stamp(job.source)
    return _Input(read_picture(job.source), stamp, time.perf_counter() - began)


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with the content of a file; empty where there is none."""
    try:
        about = path.stat()
    except OSError:
        return ()
    return about.st_ino, about.st_size, about.st_mtime_ns


def _appeared(job: Job) -> Outcome | None:
    """What becomes of a job whose result has been made since the plan, by another process as a rule."""
    if job.existing == "overwrite" or not exists(job.target):
        return None
    if job.existing == "skip":
        return Outcome(job, SKIPPED)
    return Outcome(job, FAILED, _exists_already(job.target))


def _released(outcome: Outcome) -> Outcome:
    """The same, without what the frames of its failure hold: the pixels of its picture."""
    error: BaseException | None = outcome.error
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    return outcome


def _known(outcome: Outcome) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_result(outcome)
    return future


def _restore(
    job: Job,
    reading: Future[_Input],
    restore: Restorer,
    on_tile: OnTile | None,
    writer: ThreadPoolExecutor,
    finish: _Finish,
) -> Future[Outcome]:
    """Restore one picture and hand it to the writer; the future's result is the outcome."""
    if outcome := _appeared(job):
        return _known(outcome)
    try:
        given = reading.result()
        refuse_unwritable(given.picture, format_of(job.target), finish.save)
        began = time.perf_counter()
        restored, facts = restore(given.picture, on_tile)
        spent = given.seconds + time.perf_counter() - began
    except Exception as error:
        return _known(Outcome(job, FAILED, _as_mdrn_error(error, job.source, "read")))
    # The picture as read is let go where nobody wants it any more: encoding takes its room.
    before = given.picture if finish.on_restored else None
    return writer.submit(finish, job, given.stamp, before, restored, facts, spent)


@dataclass(frozen=True)
class _Finish:
    """The last part of a job: its result encoded and written."""

    save: SaveOptions
    on_restored: OnRestored | None

    def __call__(
        self, job: Job, stamp: tuple[int, ...], before: Picture | None, restored: Picture, facts: Facts, spent: float
    ) -> Outcome:
        began = time.perf_counter()
        try:
            if self.on_restored and before:
                self.on_restored(before, restored)
            content, warnings = encode_picture(restored, format_of(job.target), self.save)
            if outcome := _appeared(job):
                return outcome
            target = job.target
            if job.target == job.source:
                if _stamp(job.source) != stamp:
                    raise InputError(f"{job.source} was changed while it was being denoised", "run it again")
                target = real_path(job.target)  # the file is replaced, not the link to it
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content)
        except Exception as error:
            return Outcome(job, FAILED, _as_mdrn_error(error, job.target, "write"))
        return Outcome(job, DONE, None, facts, restored.warnings + warnings, spent + time.perf_counter() - began)


def _as_mdrn_error(error: Exception, path: Path, doing: str) -> MdrnError:
    if isinstance(error, MdrnError):
        named = error.message if str(path) in error.message else f"{path}: {error.message}"
        wrapped: MdrnError = type(error)(named, error.hint, error.exit_code)
    elif isinstance(error, OSError) and doing == "write":
        wrapped = write_error(path, error)
    elif isinstance(error, OSError):
        wrapped = MdrnError(f"cannot {doing} {path} ({error.strerror or error})")
    elif isinstance(error, MemoryError):
        wrapped = OutOfMemoryError(f"not enough memory for {path}")
    else:
        wrapped = MdrnError(f"{path}: unexpected {type(error).__name__}: {error}", "please report this")
    wrapped.__cause__ = error
    return wrapped


def denoise_content(
    content: bytes, kind: str, options: DenoiseOptions, save: SaveOptions | None = None
) -> tuple[bytes, Facts, tuple[str, ...]]:
    """Denoise the content of an image file into that of another, as pipes need it.

    Args:
        content: of the noisy file.
        kind: PNG, JPEG, TIFF, WEBP or BMP, of the result.
        options: how to denoise.
        save: how the result is written.

    Returns:
        The result, what was done, and warnings of what could not be kept as it was.

    Raises:
        InputError, UsageError, WeightsError, DeviceError: see `read_picture`, `Restorer`, `encode_picture`.
    """
    save = save or SaveOptions()
    picture = read_picture(content)
    refuse_unwritable(picture, kind, save)
    restored, facts = Restorer(options)(picture)
    encoded, warnings = encode_picture(restored, kind, save)
    return encoded, facts, restored.warnings + warnings


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """The exit code of DESIGN section 5: 0 all done or skipped, 3 some failed; when all failed, their common
    code, or 4."""
    failures = [outcome.error.exit_code for outcome in outcomes if outcome.error]
    if not failures:
        return 0
    if len(failures) < len(outcomes):
        return 3
    return failures[0] if len(set(failures)) == 1 else 4
