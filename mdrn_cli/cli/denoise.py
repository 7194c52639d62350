"""`mdrn denoise`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mdrn_cli.cli.console import parse_bytes, print_error, print_warning, printable, stderr
from mdrn_cli.cli.options import NETWORK, Device, Ensemble, Json, Manifests, Model, Offline, Precision
from mdrn_cli.errors import UsageError

if TYPE_CHECKING:
    from mdrn_cli.batch import Job, Outcome
    from mdrn_cli.encoding import SaveOptions
    from mdrn_cli.picture import Picture
    from mdrn_cli.restore import DenoiseOptions, Facts

SCHEMA = "mdrn.denoise/1"
SUMMARY_SCHEMA = "mdrn.denoise-summary/1"
PIPE = Path("-")
FILES, FORMAT, NOISE, REPORT = "Files", "File format", "Noise", "Reporting"
AUTO = "auto"


def _sigma(text: str) -> float | None:
    """A noise level, or None for "auto"."""
    if text == AUTO:
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--sigma {text!r} is neither auto nor a number such as 25") from None


def _tile(text: str) -> int | None:
    """A side in pixels, or None for "auto"."""
    if text == AUTO:
        return None
    if not text.isdecimal():
        raise UsageError(f"--tile {text!r} is neither auto nor a number of pixels such as 512")
    return int(text)


def denoise(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Noisy images, folders of them, or - for stdin.")
    ],
    sigma: Annotated[
        str,
        typer.Option(
            metavar="auto|NUMBER",
            help="Noise level, 1 to 100 on the 0-255 scale; auto estimates that of each image.",
            rich_help_panel=NOISE,
        ),
    ] = AUTO,
    strength: Annotated[
        float,
        typer.Option(metavar="0..1", help="Blend of the input (0) and the result (1).", rich_help_panel=NOISE),
    ] = 1.0,
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
        typer.Option("-f", "--format", metavar="FORMAT", help="png, jpg, tif, webp or bmp.", rich_help_panel=FORMAT),
    ] = None,
    quality: Annotated[
        int, typer.Option(metavar="1..100", help="Of JPEG; chroma is never subsampled.", rich_help_panel=FORMAT)
    ] = 95,
    flatten: Annotated[
        str | None,
        typer.Option(metavar="COLOR", help="Lay transparent images on a background.", rich_help_panel=FORMAT),
    ] = None,
    strip_metadata: Annotated[
        bool,
        typer.Option(
            "--strip-metadata", help="Drop EXIF, XMP and the like; the result is upright.", rich_help_panel=FORMAT
        ),
    ] = False,
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
    color: Annotated[str, typer.Option(help="auto (as the file), gray or color.", rich_help_panel=FORMAT)] = "auto",
    ensemble: Ensemble = False,
    tile: Annotated[
        str,
        typer.Option(
            metavar="auto|PIXELS",
            help="Largest side of a tile, a multiple of 8; 0: no tiles; auto: as memory allows.",
            rich_help_panel=NETWORK,
        ),
    ] = "auto",
    max_memory: Annotated[
        Any,
        typer.Option(
            parser=parse_bytes, metavar="SIZE", help="Memory to stay within, such as 800M.", rich_help_panel=NETWORK
        ),
    ] = "2G",
    device: Device = "auto",
    precision: Precision = "auto",
    manifest: Manifests = None,
    _offline: Offline = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first failure.", rich_help_panel=REPORT)
    ] = False,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Also write a picture of before and after; one input.", rich_help_panel=REPORT
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write all results as JSON to a file.", rich_help_panel=REPORT),
    ] = None,
    as_json: Json = False,
) -> int:
    """Remove noise from images.

    [bold]Examples[/]

      mdrn denoise photo.jpg

      mdrn denoise photo.png -o clean.png --sigma 25 --ensemble

      mdrn denoise -r photos -o restored

      mdrn denoise photo.jpg --strength 0.7 --compare before-after.png

      cat a.png | mdrn denoise - -o - -f png > b.png
    """
    from mdrn_cli.encoding import SaveOptions
    from mdrn_cli.restore import DenoiseOptions

    options = DenoiseOptions(
        _sigma(sigma),
        model,
        color,
        ensemble,
        strength,
        _tile(tile),
        max_memory,
        device,
        precision,
        tuple(manifest or ()),
    )
    save = SaveOptions(quality, flatten, strip_metadata)
    suffix = f".{format_.lower().lstrip('.')}" if format_ else None
    if PIPE in inputs or output == PIPE:
        if compare:
            raise UsageError("--compare needs files, not pipes")
        _pipe(inputs, output, suffix, overwrite, options, save)
        return 0
    jobs = _plan(inputs, output, in_place, suffix, _existing(overwrite, skip_existing), recursive)
    if dry_run:
        for job in jobs:
            note = " (exists, skipped)" if job.skip else f" ({job.problem.message})" if job.problem else ""
            typer.echo(printable(f"{job.source} -> {job.target}{note}"))
        return 0
    if compare and len(jobs) != 1:
        raise UsageError(f"--compare is for one input, not {len(jobs)}")
    run = _Run(options, save, fail_fast, report, compare, as_json)
    return run(jobs)


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
    inputs: list[Path],
    output: Path | None,
    suffix: str | None,
    overwrite: bool,
    options: DenoiseOptions,
    save: SaveOptions,
) -> None:
    """One image from stdin or to stdout."""
    from mdrn_cli.batch import denoise_content
    from mdrn_cli.encoding import format_of
    from mdrn_cli.files import exists, write_atomically

    if len(inputs) != 1 or output is None:
        raise UsageError("- takes a single input and needs --output")
    if output == PIPE:
        if suffix is None:
            raise UsageError("stdout has no file name to tell the format", "give --format")
        if sys.stdout.isatty():
            raise UsageError("refusing to write an image to a terminal", "redirect stdout to a file or a pipe")
    elif exists(output) and not overwrite:
        raise UsageError(f"{output} exists already", "use --overwrite to replace it")
    kind = format_of(Path(f"x{suffix}") if suffix else output)
    content = _content(inputs[0])
    restored, facts, warnings = denoise_content(content, kind, options, save)
    _tell("stdout" if output == PIPE else str(output), facts, warnings)
    if output == PIPE:
        sys.stdout.buffer.write(restored)
        sys.stdout.buffer.flush()
    else:
        write_atomically(output, restored)


def _content(path: Path) -> bytes:
    from mdrn_cli.image import open_file, read_content

    if path == PIPE:
        return read_content(sys.stdin.buffer, "the input")
    with open_file(path) as file:
        return read_content(file, str(path))


@dataclass(frozen=True)
class _Run:
    """A run over files, as the command line asks for it."""

    options: DenoiseOptions
    save: SaveOptions
    fail_fast: bool
    report: Path | None
    compare: Path | None
    as_json: bool

    def __call__(self, jobs: list[Job]) -> int:
        from mdrn_cli.batch import exit_code

        outcomes = self._do(jobs)
        summary = _summary(outcomes, len(jobs))
        if self.as_json:
            typer.echo(json.dumps(summary))
        elif len(jobs) > 1:
            stderr.print(
                f"{summary['done']} done, {summary['skipped']} skipped, {summary['failed']} failed"
                + (f", {summary['not_tried']} not tried" if summary["not_tried"] else ""),
                highlight=False,
            )
        if self.report:
            _write_report(self.report, [to_json(outcome) for outcome in outcomes], summary)
        if len(jobs) == 1 and outcomes[0].error:
            raise outcomes[0].error
        return exit_code(outcomes)

    def _do(self, jobs: list[Job]) -> list[Outcome]:
        """The jobs done, each outcome shown as it arrives."""
        from mdrn_cli.batch import run_jobs

        outcomes: list[Outcome] = []
        with _bar() as bar:
            files = bar.add_task("images", total=len(jobs), unit="images", visible=len(jobs) > 1)
            tiles = bar.add_task("", total=None, unit="tiles")

            def on_start(job: Job) -> None:
                bar.reset(tiles, description=escape(printable(job.source.name)), total=None)

            def on_tile(done: int, total: int) -> None:
                bar.update(tiles, completed=done, total=total)

            on_restored = self._write_comparison if self.compare else None
            for outcome in run_jobs(jobs, self.options, on_start, on_tile, self.fail_fast, self.save, on_restored):
                outcomes.append(outcome)
                bar.advance(files)
                _show(outcome, self.as_json, quiet=len(jobs) == 1)
        return outcomes

    def _write_comparison(self, before: Picture, after: Picture) -> None:
        from mdrn_cli.compare import compare_pictures
        from mdrn_cli.files import write_atomically

        assert self.compare is not None
        write_atomically(self.compare, compare_pictures((("before", before), ("after", after))))


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
        _tell(str(outcome.job.target), outcome.facts, outcome.warnings, outcome.seconds)


def _tell(target: str, done: Facts, warnings: Sequence[str], seconds: float | None = None) -> None:
    """A line on what was done, and one for each warning."""
    how = "estimated" if done.sigma_source == "estimate" else "given"
    trained = "" if done.trained_sigma == done.sigma else f" (trained at {done.trained_sigma:g}, stretched)"
    stderr.print(
        printable(
            f"{target}: {done.width}x{done.height} {done.mode} {done.bit_depth} bits, sigma {done.sigma:.3g} {how}, "
            f"{done.model}{trained}, {done.device} {done.precision}" + (f", {seconds:.1f} s" if seconds else "")
        ),
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    for warning in warnings:
        print_warning(f"{target}: {warning}")


def to_json(outcome: Outcome) -> dict[str, Any]:
    """The object of `--json` for one input (DESIGN section 5)."""
    from mdrn_cli.restore import OVERLAP

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
            "bit_depth": done.bit_depth,
            "sigma": {"value": round(done.sigma, 3), "source": done.sigma_source},
            "model": {"name": done.model, "sha256": done.sha256, "trained_sigma": done.trained_sigma},
            "device": done.device,
            "precision": done.precision,
            "tile": {"size": done.tile, "overlap": OVERLAP, "count": done.tiles},
            "seconds": round(outcome.seconds, 3),
            "warnings": list(outcome.warnings),
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

    write_atomically(path, (json.dumps({"results": results, "summary": summary}, indent=1) + "\n").encode())
