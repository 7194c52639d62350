"""Finds files of a run that would overwrite one another: results, inputs, and what is written beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mdrn_cli.errors import UsageError
from mdrn_cli.naming import Job
from mdrn_cli.paths import is_link, refuse_existing, require_folder
from mdrn_cli.pipes import PIPE
from mdrn_cli.places import Place, Places


def without_other_names(jobs: Sequence[Job]) -> list[Job]:
    """Jobs that replace their inputs, with all but one name of each file skipped: links to it, and paths through links.
    The first name that is not itself a link stays, if there is one."""
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


def refuse_collisions(jobs: Sequence[Job], in_place: bool) -> None:
    """Refuse results that would overwrite one another or another job's input.

    Raises:
        UsageError: two would be written to one file, or one would replace an input that is not its own.
    """
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
    """Refuse, before any work, a file to be written beside the results that cannot be.

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
    taken = (each for job in jobs for each in (job.source, job.target, job.backup) if each is not None)
    if any(place == places.of(each) for each in taken):
        raise UsageError(f"{path} is an input or a result of this run", "give it another name")
    refuse_existing(path, overwrite)
    # A folder of results need not be there yet.
    if not any(places.within(job.target, path.absolute().parent) for job in jobs if not job.problem):
        require_folder(path.parent)
