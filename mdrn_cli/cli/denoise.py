"""`mdrn denoise`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mdrn_cli.cli.console import print_error, stderr
from mdrn_cli.cli.options import Device, Ensemble, Json, Manifests, Model, Offline, Precision
from mdrn_cli.errors import MdrnError, UsageError

if TYPE_CHECKING:
    from mdrn_cli.batch import Job, Outcome
    from mdrn_cli.denoise import DenoiseOptions

SCHEMA = "mdrn.denoise/1"
SUMMARY_SCHEMA = "mdrn.denoise-summary/1"
PIPE = Path("-")
FILES = "Files"


def denoise(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Noisy images, folders of them, or - for stdin.")
    ],
    sigma: Annotated[float, typer.Option(help="Noise level on the 0-255 scale, such as 25 or 50.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Output file, or folder for several; - for stdout. By default beside INPUT with _mdrn added.",
            rich_help_panel=FILES,
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("-r", "--recursive", help="Search folders at any depth.", rich_help_panel=FILES)
    ] = False,
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace the inputs.", rich_help_panel=FILES)] = False,
    format_: Annotated[
        str | None,
        typer.Option("-f", "--format", metavar="FORMAT", help="png, jpg, tif, webp or bmp.", rich_help_panel=FILES),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing outputs.", rich_help_panel=FILES)
    ] = False,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Leave existing outputs; the default for folders.", rich_help_panel=FILES),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and stop.", rich_help_panel=FILES)
    ] = False,
    model: Model = "auto",
    color: Annotated[str, typer.Option(help="auto (as the file), gray or color.")] = "auto",
    ensemble: Ensemble = False,
    tile: Annotated[int, typer.Option(help="Side of a tile in pixels, a multiple of 8; 0: no tiles.")] = 512,
    device: Device = "auto",
    precision: Precision = "auto",
    manifest: Manifests = None,
    _offline: Offline = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.")] = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all results as JSON to a file.")] = None,
    as_json: Json = False,
) -> int:
    """Remove noise from images.

    [bold]Examples[/]

      mdrn denoise photo.png --sigma 25

      mdrn denoise photo.png -o clean.png --sigma 50 --ensemble

      mdrn denoise -r photos -o restored --sigma 25

      cat a.png | mdrn denoise - -o - -f png --sigma 25 > b.png
    """
    from mdrn_cli.denoise import DenoiseOptions

    options = DenoiseOptions(sigma, model, color, ensemble, tile, device, precision, tuple(manifest or ()))
    suffix = f".{format_.lower().lstrip('.')}" if format_ else None
    if PIPE in inputs or output == PIPE:
        _pipe(inputs, output, suffix, overwrite, options)
        return 0
    jobs = _plan(inputs, output, in_place, suffix, _existing(overwrite, skip_existing), recursive)
    if dry_run:
        for job in jobs:
            typer.echo(f"{job.source} -> {job.target}" + (" (exists, skipped)" if job.skip else ""))
        return 0
    return _run(jobs, options, fail_fast, report, as_json)


def _existing(overwrite: bool, skip_existing: bool) -> str:
    if overwrite and skip_existing:
        raise UsageError("--overwrite and --skip-existing exclude one another")
    return "overwrite" if overwrite else "skip" if skip_existing else "error"


def _plan(
    inputs: list[Path], output: Path | None, in_place: bool, suffix: str | None, existing: str, recursive: bool
) -> list[Job]:
    from mdrn_cli.batch import Naming, plan_jobs

    return plan_jobs(inputs, Naming(output, in_place, suffix, existing, recursive))


def _pipe(
    inputs: list[Path], output: Path | None, suffix: str | None, overwrite: bool, options: DenoiseOptions
) -> None:
    """One image from stdin or to stdout."""
    from mdrn_cli.batch import denoise_content
    from mdrn_cli.files import write_atomically
    from mdrn_cli.image import format_of

    if len(inputs) != 1 or output is None:
        raise UsageError("- takes a single input and needs --output")
    if output == PIPE:
        if suffix is None:
            raise UsageError("stdout has no file name to tell the format", "give --format")
        if sys.stdout.isatty():
            raise UsageError("refusing to write an image to a terminal", "redirect stdout to a file or a pipe")
    elif output.exists() and not overwrite:
        raise UsageError(f"{output} exists already", "use --overwrite to replace it")
    kind = format_of(Path(f"x{suffix}") if suffix else output)
    content = sys.stdin.buffer.read() if inputs[0] == PIPE else _content(inputs[0])
    restored = denoise_content(content, kind, options)
    if output == PIPE:
        sys.stdout.buffer.write(restored)
        sys.stdout.buffer.flush()
    else:
        try:
            write_atomically(output, restored)
        except OSError as error:
            raise MdrnError(f"cannot write {output} ({error.strerror or error})") from error


def _content(path: Path) -> bytes:
    from mdrn_cli.errors import InputError

    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error})") from error


def _run(jobs: list[Job], options: DenoiseOptions, fail_fast: bool, report: Path | None, as_json: bool) -> int:
    from mdrn_cli.batch import exit_code, run_jobs

    outcomes: list[Outcome] = []
    with _bar() as bar:
        files = bar.add_task("images", total=len(jobs), unit="images", visible=len(jobs) > 1)
        tiles = bar.add_task("", total=None, unit="tiles")

        def on_start(job: Job) -> None:
            bar.reset(tiles, description=escape(job.source.name), total=None)

        def on_tile(done: int, total: int) -> None:
            bar.update(tiles, completed=done, total=total)

        for outcome in run_jobs(jobs, options, on_start, on_tile, fail_fast):
            outcomes.append(outcome)
            bar.advance(files)
            _show(outcome, as_json, quiet=len(jobs) == 1)
    summary = _summary(outcomes, len(jobs))
    if as_json:
        typer.echo(json.dumps(summary))
    elif len(jobs) > 1:
        stderr.print(
            f"{summary['done']} done, {summary['skipped']} skipped, {summary['failed']} failed"
            + (f", {summary['not_tried']} not tried" if summary["not_tried"] else ""),
            highlight=False,
        )
    if report:
        _write_report(report, [to_json(outcome) for outcome in outcomes], summary)
    if len(jobs) == 1 and outcomes[0].error:
        raise outcomes[0].error
    return exit_code(outcomes)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
        transient=True,
    )


def _show(outcome: Outcome, as_json: bool, quiet: bool) -> None:
    """An outcome as it arrives: JSON on stdout, a line on stderr; `quiet` leaves errors to the caller."""
    if as_json:
        typer.echo(json.dumps(to_json(outcome)))
    if outcome.error and not quiet:
        print_error(outcome.error.message, outcome.error.hint)
    if outcome.facts and not as_json:
        done = outcome.facts
        stderr.print(
            f"{outcome.job.target}: {done.width}x{done.height} {done.mode}, sigma {done.sigma:g}, {done.model}, "
            f"{done.device} {done.precision}, {outcome.seconds:.1f} s",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def to_json(outcome: Outcome) -> dict[str, Any]:
    """The object of `--json` for one input (DESIGN section 5)."""
    from mdrn_cli.denoise import OVERLAP
    from mdrn_cli.image import BIT_DEPTH

    about: dict[str, Any] = {
        "schema": SCHEMA,
        "input": str(outcome.job.source),
        "output": str(outcome.job.target),
        "status": outcome.status,
        "error": outcome.error.message if outcome.error else None,
    }
    done = outcome.facts
    if done:
        about |= {
            "width": done.width,
            "height": done.height,
            "mode": done.mode,
            "bit_depth": BIT_DEPTH,
            "sigma": {"value": done.sigma, "source": "option"},
            "model": {"name": done.model, "sha256": done.sha256},
            "device": done.device,
            "precision": done.precision,
            "tile": {"size": done.tile, "overlap": OVERLAP, "count": done.tiles},
            "seconds": round(outcome.seconds, 3),
            "warnings": [],
        }
    return about


def _summary(outcomes: list[Outcome], count: int) -> dict[str, Any]:
    counts = Counter(outcome.status for outcome in outcomes)
    return {
        "schema": SUMMARY_SCHEMA,
        "done": counts["done"],
        "skipped": counts["skipped"],
        "failed": counts["failed"],
        "not_tried": count - len(outcomes),
        "failures": [
            {"input": str(outcome.job.source), "error": outcome.error.message} for outcome in outcomes if outcome.error
        ],
    }


def _write_report(path: Path, results: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    from mdrn_cli.files import write_atomically

    try:
        write_atomically(path, (json.dumps({"results": results, "summary": summary}, indent=1) + "\n").encode())
    except OSError as error:
        raise MdrnError(f"cannot write {path} ({error.strerror or error})") from error
