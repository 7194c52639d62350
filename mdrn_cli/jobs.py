"""What a run is to do, decided before anything is done: what is an input, and what its result."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from mdrn_cli.collisions import refuse_collisions, without_other_names
from mdrn_cli.content import open_file, refuse_other_formats
from mdrn_cli.errors import InputError, UsageError
from mdrn_cli.formats import FORMATS, images_of, without_images
from mdrn_cli.naming import (
    OUTPUT_SUFFIX,
    Job,
    Naming,
    hopeless,
    is_missing,
    kind_of_result,
    missing,
    plan_file,
    plan_named,
)
from mdrn_cli.paths import exists, is_file, is_folder, real_path, refuse_existing, require_folder
from mdrn_cli.pipes import PIPE
from mdrn_cli.places import Places

_T = TypeVar("_T")

OnOther = Callable[[Path], None]
"""Called with each picture of a folder whose format is not handled."""


def plan_jobs(inputs: Sequence[Path], naming: Naming, on_other: OnOther | None = None) -> list[Job]:
    """Decide what is to be done, before anything is.

    Args:
        inputs: files, and folders (whose tree is mirrored under the output folder); or `-` alone.
        naming: where results go.
        on_other: see OnOther.

    Returns:
        A job for each image and place of its result, once however often that is given (in place, further names of a
        file are skipped); and for each input that is missing, cannot be listed or is no image by its
        name, and each folder without images, one that tells of the problem.

    Raises:
        UsageError: two results would have one name, a result exists already, an output folder is missing,
            or its format is unknown or not the one asked for.
    """
    inputs = once(inputs, spelled_out)
    piped = PIPE in inputs or naming.output == PIPE
    jobs = [_plan_pipe(inputs, naming)] if piped else once(_plan_inputs(inputs, naming, on_other), _places)
    if naming.in_place:
        jobs = without_other_names(jobs)
    refuse_collisions(jobs, naming.in_place)
    return jobs


def once(items: Iterable[_T], key: Callable[[_T], Hashable]) -> list[_T]:
    """The first of all items that have the same key."""
    distinct: dict[Hashable, _T] = {}
    for item in items:
        distinct.setdefault(key(item), item)
    return list(distinct.values())


def _places(job: Job) -> tuple[Path, Path]:
    return spelled_out(job.source), spelled_out(job.target)


def spelled_out(path: Path) -> Path:
    """A path as it is whatever the current folder, without following links: two names of a file are two images."""
    if ".." in path.parts:  # of what a link leads to, not of the folder the link is in
        return real_path(path.parent) / path.name if path.name != ".." else real_path(path)
    return Path(os.path.normpath(path.absolute()))


def _plan_pipe(inputs: Sequence[Path], naming: Naming) -> Job:
    if naming.in_place:
        raise UsageError("--in-place needs files, not pipes")
    if len(inputs) != 1:
        raise UsageError(
            f"- is one picture, and there are {len(inputs)} inputs", "give a single input, or an output folder"
        )
    if naming.output is None:
        raise UsageError("input from a pipe has no name, and needs --output", "it may be - for stdout")
    if naming.output == PIPE:
        if is_folder(inputs[0]):
            raise UsageError(f"{inputs[0]} is a folder, and stdout takes one image", "name an output folder")
        if naming.suffix is None:
            raise UsageError("stdout has no file name to tell the format", "give --format")
        return Job(inputs[0], PIPE, kind=FORMATS[naming.suffix])
    if naming.folder or is_folder(naming.output):
        raise UsageError(f"{naming.output} is a folder, and input from a pipe has no name", "name a file")
    require_folder(naming.output.parent)
    return plan_file(PIPE, naming.output, naming.suffix, naming.existing)


def _plan_inputs(inputs: Sequence[Path], naming: Naming, on_other: OnOther | None) -> list[Job]:
    into_folder = _goes_into_folder(inputs, naming)
    if naming.output is not None and not into_folder:
        require_folder(naming.output.parent)
    originals = _originals([source for source in inputs if not is_folder(source)])
    jobs: list[Job] = []
    for source in inputs:
        if is_missing(source):
            jobs.append(missing(source))
        elif is_folder(source):
            jobs += _plan_folder(source, naming, on_other)
        elif naming.beside and (original := _original_of(source, originals)):
            jobs.append(Job(source, source, f"it is the result of {original}"))
        elif problem := _foreign(source, has_its_format=naming.suffix is None and (into_folder or not naming.output)):
            jobs.append(hopeless(source, problem))
        else:
            jobs.append(plan_named(source, source.name, naming, into_folder, naming.existing))
    return jobs


def _goes_into_folder(inputs: Sequence[Path], naming: Naming) -> bool:
    """Whether the output is the folder of the results, not the name of one."""
    several = len(inputs) > 1 or is_folder(inputs[0])
    if naming.output is None:
        return several
    nameless = not (naming.output.suffix or naming.suffix)
    into_folder = several or naming.folder or nameless or is_folder(naming.output)
    if into_folder and exists(naming.output) and not is_folder(naming.output):
        if several:
            raise UsageError(f"{naming.output} is a file; several results need a folder")
        refuse_existing(naming.output, overwrite=True)  # a device, whatever its format
        raise UsageError(
            f"{naming.output} is a file, not a folder", "give --format to write a file of that name" if nameless else ""
        )
    if several and not (naming.folder or is_folder(naming.output)) and naming.output.suffix.lower() in FORMATS:
        raise UsageError(
            f"{naming.output} is the name of a picture; several results need a folder",
            f"for one of that name, {naming.output}/",
        )
    return into_folder


def _foreign(source: Path, has_its_format: bool) -> InputError | None:
    """What is wrong with a file that is a picture of another format, and with one whose result has its format, if it
    names none that is handled."""
    try:
        if source != PIPE and not is_file(source):
            open_file(source).close()  # says what it is instead
        refuse_other_formats(source)
        if has_its_format:
            kind_of_result(source, None)
    except InputError as error:
        return error
    except UsageError as error:
        return InputError(error.message, error.hint)
    return None


def _plan_folder(folder: Path, naming: Naming, on_other: OnOther | None) -> list[Job]:
    files, problems = images_of(folder, naming.recursive, on_other)
    if naming.output is not None:
        files = _without_results(files, folder, naming.output, naming.suffix is not None)
    else:
        originals = _originals(files)
        files = [f for f in files if not _original_of(f, originals)]
    if not files and not problems:
        problems = [(folder, without_images(folder, naming.recursive))]
    existing = "skip" if naming.existing == "error" else naming.existing
    planned = (plan_named(f, f.relative_to(folder).as_posix(), naming, True, existing) for f in files)
    jobs = [job if job.skip or not is_missing(job.source) else missing(job.source) for job in planned]
    return jobs + [hopeless(*problem) for problem in problems]


def _without_results(files: list[Path], folder: Path, output: Path, renamed: bool) -> list[Path]:
    """Files of a folder but those in an output folder within it, however the two are spelled."""
    places = Places()
    root, out = places.folder(folder), places.folder(output)
    if out == root and not renamed:
        raise UsageError(f"results in {output} would replace the inputs", "use --in-place, or another folder")
    if out == root or not places.within(output, folder):
        return files
    return [file for file in files if not places.within(file.parent, output)]


def _originals(files: Sequence[Path]) -> dict[tuple[Path, str], Path]:
    """Images by folder and name without suffix, as their results can be told by."""
    return {(real_path(file.parent), file.stem): file for file in files if file.suffix.lower() in FORMATS}


def _original_of(file: Path, originals: dict[tuple[Path, str], Path]) -> Path | None:
    """The file that an earlier run has made this one of, beside it, so that it is not taken for an input."""
    stem = file.stem.removesuffix(OUTPUT_SUFFIX)
    return None if stem == file.stem else originals.get((real_path(file.parent), stem))
