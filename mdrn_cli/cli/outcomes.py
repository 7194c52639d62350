"""What became of the inputs of `mdrn denoise`: lines on stderr, JSON on stdout, a report in a file."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdrn_cli.cli.console import echo, print_error, print_note, print_warning, printable

if TYPE_CHECKING:
    from mdrn_cli.levelfunction import LevelFunction
    from mdrn_cli.naming import Job
    from mdrn_cli.outcome import Outcome
    from mdrn_cli.passes import Beside, Pass
    from mdrn_cli.restore import Facts

SCHEMA = "mdrn.denoise/1"
SUMMARY_SCHEMA = "mdrn.denoise-summary/1"
SCREENFUL = 20
"""Number of inputs beyond which failures have scrolled away and are repeated at the end, and most failures repeated."""


def show(outcome: Outcome, as_json: bool, alone: bool, quiet: bool = False) -> None:
    """An outcome as it arrives: JSON on stdout, or lines on stderr, if quiet only warnings and errors; the error of an
    only job is left to the caller."""
    job = outcome.job
    if as_json:
        echo(json.dumps(to_json(outcome)))
    if outcome.error and not alone:
        print_error(outcome.error)
    if outcome.facts and not as_json:
        target = _shown(job.target)
        if not quiet:
            print_note(_line(target, outcome.facts, outcome.seconds))
        for warning in outcome.warnings:
            print_warning(f"{target}: {warning}")
    # Results of earlier runs are counted only: there may be thousands.
    if job.skip and not (as_json or quiet) and (alone or _is_passed_over(job)):
        print_note(plan_line(job))


def _is_passed_over(job: Job) -> bool:
    """Whether an input is skipped and has no result of its own anywhere: its target is itself."""
    return bool(job.skip) and job.target == job.source


def plan_line(job: Job) -> str:
    """A line on what becomes of a job that is not known to fail."""
    return printable(f"{job.source}: skipped, {job.skip}" if job.skip else f"{job.source} -> {job.target}")


def warn_of_others(paths: Sequence[Path]) -> None:
    """Warnings that a search of folders has passed over pictures and links to folders, if it has."""
    from mdrn_cli.paths import is_folder

    links = sorted({str(path) for path in paths if is_folder(path)})
    if links:
        print_warning(
            f"links to folders are not followed: {', '.join(map(printable, links[:3]))}{' ...' * (len(links) > 3)}"
        )
    counts = Counter(path.suffix.lower() for path in set(paths) if str(path) not in links)
    if counts:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
        print_warning(f"formats that are not handled were passed over: {kinds}")


def show_summary(summary: dict[str, Any], jobs: int, as_json: bool, quiet: bool) -> None:
    """How many of the jobs were done, and of many what failed and why: JSON on stdout, or for several, unless quiet,
    lines on stderr."""
    if as_json:
        echo(json.dumps(summary))
    elif jobs > 1 and not quiet:
        counts = ("done", "skipped", "failed") + (("not_tried",) if summary["not_tried"] else ())
        print_note(", ".join(f"{summary[count]} {count.replace('_', ' ')}" for count in counts))
        failures = [(failure["input"], failure["error"]) for failure in summary["failures"]]
        for name, error in failures[:SCREENFUL] if jobs > SCREENFUL else ():
            print_note(f"  {error if name in error else f'{name}: {error}'}")
        if more := failures[SCREENFUL:]:
            print_note(f"  and {len(more)} more; a report (--report FILE.json) lists all")


def _shown(target: Path) -> str:
    from mdrn_cli.pipes import PIPE

    return "stdout" if target == PIPE else printable(str(target))


def _line(target: str, done: Facts, seconds: float) -> str:
    """What was done."""
    about = [f"{done.width}x{done.height} {done.mode} {done.bit_depth} bits", f"sigma {_told(done)}"]
    about += dict.fromkeys(one.label for one in done.passes)
    about += [f"{one.device} {one.precision}" for one in done.passes[:1]]
    return printable(f"{target}: {', '.join(about)}, {seconds:.1f} s")


def _told(done: Facts) -> str:
    """Levels of the noise, and whether they are given."""
    if math.isnan(done.sigma):
        return "unknown"
    told = f"{done.sigma:.3g} {'estimated' if done.sigma_source == 'estimate' else 'given'}"
    if done.by_intensity:
        told += " ({:.3g} in black, {:.3g} in white)".format(*done.by_intensity.ends)
    if done.factor != 1 and done.network:
        told += f", removed as {done.network.sigma:.3g}"
    return ", ".join(filter(None, (told, at_smaller_sizes(done.coarse_sigmas))))


def at_smaller_sizes(levels: Sequence[float]) -> str:
    """Noise levels at half the size and at a quarter, in words; of 0 none."""
    sizes = zip(("half", "a quarter of"), levels, strict=False)
    return ", ".join(f"{level:.3g} at {size} the size" for size, level in sizes if level)


def to_json(outcome: Outcome) -> dict[str, Any]:
    """The object of `--json` for one input (docs/json.md); it has the same keys whatever became of it."""
    return {
        "schema": SCHEMA,
        "input": str(outcome.job.source),
        "output": None if outcome.job.problem or _is_passed_over(outcome.job) else str(outcome.job.target),
        "status": outcome.status,
        "reason": outcome.job.skip or None,
        "error": outcome.error.message if outcome.error else None,
        **_facts_to_json(outcome.facts),
        "seconds": round(outcome.seconds, 3) if outcome.facts else None,
        "warnings": list(outcome.warnings),
    }


def _facts_to_json(done: Facts | None) -> dict[str, Any]:
    """What was done; nulls where nothing was."""
    if not done:
        nothing = dict.fromkeys(("width", "height", "mode", "bit_depth", "sigma"))
        return {**nothing, **_pass_to_json(None), "coarse": []}
    return {
        "width": done.width,
        "height": done.height,
        "mode": done.mode,
        "bit_depth": done.bit_depth,
        "sigma": {
            "value": None if math.isnan(done.sigma) else round(done.sigma, 3),
            "source": done.sigma_source,
            "factor": done.factor,
            "removed": done.network and round(done.network.sigma, 3),
            "coarse": [round(sigma, 3) for sigma in done.coarse_sigmas],
            **ends_to_json(done.by_intensity),
        },
        **_pass_to_json(done.network),
        "coarse": [_pass_to_json(one) for one in done.coarse],
    }


def ends_to_json(by_intensity: LevelFunction | None) -> dict[str, float | None]:
    """The noise level in black and in white; nulls where it was not found to depend on the intensity."""
    ends = by_intensity.ends if by_intensity else (None, None)
    return {key: end and round(end, 3) for key, end in zip(("in_black", "in_white"), ends, strict=True)}


def _pass_to_json(done: Pass | None) -> dict[str, Any]:
    """The network that was used, on what and how; nulls where none was."""
    if not done:
        return dict.fromkeys(("model", "beside", "device", "precision", "tile"))
    return {
        "model": _network_to_json(done),
        "beside": done.beside and _network_to_json(done.beside),
        "device": done.device,
        "precision": done.precision,
        "tile": {"size": done.tile, "overlap": done.overlap, "count": done.tiles},
    }


def _network_to_json(used: Pass | Beside) -> dict[str, Any]:
    return {"name": used.model, "sha256": used.sha256, "trained_sigma": used.trained_sigma}


def summarized(outcomes: Sequence[Outcome], count: int, dry_run: bool = False) -> dict[str, Any]:
    """How many of the jobs were done, and why others were not, as JSON has it."""
    counts = Counter(outcome.status for outcome in outcomes)
    return {
        "schema": SUMMARY_SCHEMA,
        "dry_run": dry_run,
        "planned": counts["planned"],
        "done": counts["done"],
        "skipped": counts["skipped"],
        "failed": counts["failed"],
        "not_tried": count - len(outcomes),
        "failures": [
            {"input": str(outcome.job.source), "error": outcome.error.message} for outcome in outcomes if outcome.error
        ],
    }


def write_report(path: Path, outcomes: Sequence[Outcome], summary: dict[str, Any]) -> None:
    """The objects of `--json` in a file, and the folder for it where the run has made none.

    Raises:
        MdrnError: it cannot be written.
    """
    from mdrn_cli.files import write_atomically
    from mdrn_cli.paths import is_folder

    about = {"results": [to_json(outcome) for outcome in outcomes], "summary": summary}
    if not is_folder(path.parent):
        with suppress(OSError):  # writing tells
            path.parent.mkdir(parents=True)
    write_atomically(path, (json.dumps(about, indent=1) + "\n").encode())


def is_replaceable(path: Path, dry_run: bool) -> bool:
    """Whether a file is the report of an earlier run, which that of a later run may replace; that of a dry run replaces
    only another such."""
    try:
        summary = json.loads(path.read_bytes())["summary"] if path.is_file() else {}
        return summary["schema"] == SUMMARY_SCHEMA and (not dry_run or bool(summary["dry_run"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
