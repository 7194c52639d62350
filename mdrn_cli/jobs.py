"""What a run is to do: where each result goes and in which format, decided before anything is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mdrn_cli.content import refuse_other_formats
from mdrn_cli.encoding import format_of
from mdrn_cli.errors import InputError, MdrnError, UsageError
from mdrn_cli.formats import FORMATS, images_of, without_images
from mdrn_cli.paths import (
    UNPROTECT,
    behind_link,
    exists,
    is_file,
    is_folder,
    is_link,
    is_write_protected,
    real_path,
    refuse_existing,
    require_folder,
    size_of,
)
from mdrn_cli.pipes import PIPE
from mdrn_cli.places import Place, Places

_T = TypeVar("_T")

OUTPUT_SUFFIX = "_mdrn"
REPLACE_OR_KEEP = "use --overwrite to replace it, --skip-existing to keep it"


@dataclass(frozen=True)
class Naming:
    """Where results go.

    Args:
        output: file or folder, or `-`; None puts each result beside its input, `_mdrn` added to the name.
        in_place: replace the inputs.
        suffix: such as ".png"; None keeps the input's.
        existing: what to do where a result exists already: "error", "skip" or "overwrite".
        recursive: whether folders are searched at any depth.
        folder: whether `output` is a folder, also where none of that name exists.
    """

    output: Path | None = None
    in_place: bool = False
    suffix: str | None = None
    existing: str = "error"
    recursive: bool = False
    folder: bool = False

    def __post_init__(self) -> None:
        if self.in_place and (self.output or self.suffix):
            raise UsageError("--in-place excludes --output and --format")
        if self.in_place and self.existing == "skip":
            raise UsageError("--in-place replaces what --skip-existing would leave", "leave one of them out")
        if self.suffix and self.suffix not in FORMATS:
            raise UsageError(f"no format {self.suffix[1:]!r}", f"formats are: {', '.join(sorted(FORMATS))}")

    @property
    def beside(self) -> bool:
        """Whether results lie beside their inputs, under names of their own."""
        return self.output is None and not self.in_place


@dataclass(frozen=True)
class Job:
    """One input and where its result goes.

    Attributes:
        source: the input; `-` is standard input.
        target: where its result goes; `-` is standard output.
        skip: why there is nothing to do; empty where there is.
        existing: what to do where the result has come to exist by the time it would be written: see Naming.
        problem: why nothing can come of it, where that is known beforehand; there is no target then.
        kind: format of the result as Pillow names it; empty where there is nothing to write.
        is_sparing: whether it fails where the input is to be replaced and holds pictures or layers that its result
            would not.
    """

    source: Path
    target: Path
    skip: str = ""
    existing: str = "overwrite"
    problem: MdrnError | None = None
    kind: str = ""
    is_sparing: bool = False


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
        jobs = _without_other_names(jobs)
    _refuse_collisions(jobs, naming.in_place)
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
        raise UsageError("what comes from a pipe has no name, and needs --output", "it may be - for stdout")
    if naming.output == PIPE:
        if is_folder(inputs[0]):
            raise UsageError(f"{inputs[0]} is a folder, and stdout takes one image", "name an output folder")
        if naming.suffix is None:
            raise UsageError("stdout has no file name to tell the format", "give --format")
        return Job(inputs[0], PIPE, kind=FORMATS[naming.suffix])
    if naming.folder or is_folder(naming.output):
        raise UsageError(f"{naming.output} is a folder, and what comes from a pipe has no name", "name a file")
    require_folder(naming.output.parent)
    return _plan_file(PIPE, naming.output, naming.suffix, naming.existing)


def _plan_inputs(inputs: Sequence[Path], naming: Naming, on_other: OnOther | None) -> list[Job]:
    into_folder = _goes_into_folder(inputs, naming)
    if naming.output is not None and not into_folder:
        require_folder(naming.output.parent)
    originals = _originals([source for source in inputs if not is_folder(source)])
    jobs: list[Job] = []
    for source in inputs:
        if _is_missing(source):
            jobs.append(_missing(source))
        elif is_folder(source):
            jobs += _plan_folder(source, naming, on_other)
        elif naming.beside and (original := _original_of(source, originals)):
            jobs.append(Job(source, source, f"it is the result of {original}"))
        elif problem := _foreign(source, has_its_format=naming.suffix is None and (into_folder or not naming.output)):
            jobs.append(_hopeless(source, problem))
        else:
            jobs.append(_plan_named(source, source.name, naming, into_folder, naming.existing))
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
        raise UsageError(
            f"{naming.output} is a file, not a folder", "give --format to write a file of that name" if nameless else ""
        )
    if several and not (naming.folder or is_folder(naming.output)) and naming.output.suffix.lower() in FORMATS:
        raise UsageError(
            f"{naming.output} is the name of a picture; several results need a folder",
            f"for one of that name, {naming.output}/",
        )
    return into_folder


def _is_missing(source: Path) -> bool:
    """Whether there is nothing of that name; what cannot be told is left to be found when it is read."""
    try:
        source.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _foreign(source: Path, has_its_format: bool) -> InputError | None:
    """What is wrong with a file that is a picture of another format, and with one whose result has its format, if it
    names none that is handled."""
    try:
        refuse_other_formats(source)
        if has_its_format:
            _kind(source, None)
    except InputError as error:
        return error
    except UsageError as error:
        return InputError(error.message, error.hint)
    return None


def _hopeless(source: Path, problem: MdrnError) -> Job:
    """The job of an input that has no images, so that it is told of with the failures."""
    return Job(source, source, problem=problem)


def _missing(source: Path) -> Job:
    return _hopeless(source, InputError(f"no file or folder {source}"))


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
    planned = (_plan_named(f, f.relative_to(folder).as_posix(), naming, True, existing) for f in files)
    jobs = [job if job.skip or not _is_missing(job.source) else _missing(job.source) for job in planned]
    return jobs + [_hopeless(*problem) for problem in problems]


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


def _plan_named(source: Path, name: str, naming: Naming, into_folder: bool, existing: str) -> Job:
    """The job of a file; `name` is its path below the output folder."""
    if naming.in_place and is_write_protected(source):
        return _hopeless(source, InputError(f"{source} is write-protected", UNPROTECT))
    if naming.in_place:
        return Job(source, source, kind=_kind(source, None), is_sparing=naming.existing != "overwrite")
    if naming.output is not None and not into_folder:
        return _plan_file(source, naming.output, naming.suffix, existing)
    beside = source.with_name(f"{source.stem}{OUTPUT_SUFFIX}{source.suffix}")
    target = beside if naming.output is None else naming.output / name
    return _plan_file(source, target.with_suffix(naming.suffix or target.suffix), naming.suffix, existing)


def _plan_file(source: Path, target: Path, suffix: str | None, existing: str) -> Job:
    kind = _kind(target, suffix)
    if existing == "skip" and is_result(target):
        return Job(source, target, kept(target), existing, kind=kind)
    if existing == "skip" and exists(target) and not is_file(target):
        return _hopeless(source, MdrnError(f"{target} exists already and is not a file", "move it away"))
    try:
        refuse_present(target, existing)
    except UsageError as error:
        if existing != "skip":
            raise
        return _hopeless(source, MdrnError(error.message, error.hint))
    return Job(source, target, existing=existing, kind=kind)


def refuse_present(target: Path, existing: str) -> None:
    """Refuse what stands where a result is to go, which is none itself.

    Raises:
        UsageError: nothing is to be replaced, or it cannot be; or it is a link, to nothing or to an empty file, which
            whoever made the folder may have laid to have something written elsewhere: it is followed only if asked.
    """
    if existing == "skip" and is_link(target):
        raise UsageError(f"{target} is a link, and no result is behind it", "remove it, or follow it by --overwrite")
    refuse_existing(target, existing != "error", REPLACE_OR_KEEP)


def is_result(target: Path) -> bool:
    """Whether there is a file of that name with something in it: an empty one, as a full disk leaves, is none."""
    return size_of(target) > 0


def kept(target: Path) -> str:
    """Why a job is skipped whose result there is."""
    return f"{target} exists already"


def _kind(target: Path, suffix: str | None) -> str:
    """The format of a result: what the name of the file says that is replaced or made, else what is asked for."""
    replaced = behind_link(target)
    named = FORMATS.get(replaced.suffix.lower()) or FORMATS.get(target.suffix.lower())
    if suffix is None:
        return named or format_of(target)
    if named not in (None, FORMATS[suffix]):
        raise UsageError(
            f"--format {suffix[1:]} is not the format of {replaced}", "leave --format out, or change the suffix"
        )
    return FORMATS[suffix]


def _without_other_names(jobs: Sequence[Job]) -> list[Job]:
    """Jobs that replace their inputs, but one for each file: links to it, and paths through links, are passed over. It
    goes by the first that is no link itself, if there is one."""
    known = Places()
    places = [known.of(job.source) for job in jobs]
    names: dict[Place, Path] = {}
    for job, place in zip(jobs, places, strict=True):
        better = place not in names or (is_link(names[place]) and not is_link(job.source))
        if not job.problem and better:
            names[place] = job.source
    return [
        job
        if job.problem or names[place] == job.source
        else Job(job.source, job.source, f"it is the file {names[place]}")
        for job, place in zip(jobs, places, strict=True)
    ]


def _refuse_collisions(jobs: Sequence[Job], in_place: bool) -> None:
    # Not of results that earlier runs have left: these are to be replaced by those of this one, if asked for.
    live = [job for job in jobs if not job.problem and not (job.skip and job.target == job.source)]
    places = Places()
    sources: dict[Place, Path] = {}
    inputs = {places.of(job.source) for job in live}
    for job in live:
        target = places.of(job.target)
        if target in sources:
            raise UsageError(
                f"{sources[target]} and {job.source} would both be written to {job.target}", "give them other names"
            )
        if target in inputs and not (in_place or job.skip or job.target == PIPE):
            hint = "use --in-place, or another name" if target == places.of(job.source) else ""
            raise UsageError(f"the result of {job.source} would replace the input {job.target}", hint)
        sources[target] = job.source


def refuse_extra(path: Path, jobs: Sequence[Job], overwrite: bool) -> None:
    """Tell, before any work, that a file that a run is to write beside its results cannot be written.

    Args:
        path: the file.
        jobs: of the run.
        overwrite: whether a file of that name may be replaced.

    Raises:
        UsageError: it is an input or a result of the run, exists already, or has no folder.
    """
    if path == PIPE:
        raise UsageError("only --output can be -, for stdout")
    places = Places()
    place = places.of(path)
    if any(place in (places.of(job.source), places.of(job.target)) for job in jobs):
        raise UsageError(f"{path} is an input or a result of this run", "give it another name")
    refuse_existing(path, overwrite)
    # A folder of results need not be there yet.
    if not any(places.within(job.target, path.absolute().parent) for job in jobs if not job.problem):
        require_folder(path.parent)
