"""`mdrn denoise`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdrn_cli.cli.compare import require_png
from mdrn_cli.cli.console import parse_bytes, parse_tile, print_warning
from mdrn_cli.cli.denoiserun import AUTO, Run
from mdrn_cli.cli.options import (
    NETWORK,
    Device,
    Ensemble,
    Json,
    Manifests,
    Model,
    Offline,
    Precision,
    White,
    choices,
    flag,
    path_given,
)
from mdrn_cli.cli.outcomes import is_replaceable, warn_of_others
from mdrn_cli.errors import UsageError

if TYPE_CHECKING:
    from mdrn_cli.naming import Job, Naming

FILES, FORMAT, NOISE, REPORT = "Files", "File format", "Noise", "Reporting"

Inputs = Annotated[
    list[Path],
    typer.Argument(parser=path_given, metavar="INPUT...", help="Noisy images, folders of them, or - for stdin."),
]
Sigma = Annotated[
    str,
    typer.Option(
        metavar="auto|NUMBER|xNUMBER",
        help="Noise level, 1 to 100 on the 0-255 scale; auto estimates it for each image, x1.3 multiplies that by 1.3.",
        rich_help_panel=NOISE,
    ),
]
CoarseSigma = Annotated[
    str,
    typer.Option(
        metavar="auto|NUMBER[,NUMBER]",
        help="Noise of coarse grain, as its level at half the size and at a quarter; 0 for none; auto looks for it "
        "where --sigma is auto.",
        rich_help_panel=NOISE,
    ),
]
Strength = Annotated[
    float,
    typer.Option(metavar="0..1", help="Blend of the input (0) and the result (1).", rich_help_panel=NOISE),
]
Output = Annotated[
    str | None,  # a Path would lose the / at the end of a folder
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        help="Output file; a folder for several, or with / at its end; - for stdout. "
        "By default beside INPUT with _mdrn added.",
        rich_help_panel=FILES,
    ),
]
Recursive = Annotated[bool, flag("-r", "--recursive", help="Search folders at any depth.", rich_help_panel=FILES)]
InPlace = Annotated[bool, flag("--in-place", help="Replace the inputs.", rich_help_panel=FILES)]
Backup = Annotated[
    str,
    typer.Option(
        metavar="SUFFIX",
        help="With --in-place: keep each original under its name and SUFFIX, such as .orig; files that have such a "
        "backup are not denoised again.",
        rich_help_panel=FILES,
        show_default=False,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "-f",
        "--format",
        metavar="FORMAT",
        help="png, jpg, tif, webp or bmp.",
        autocompletion=choices("png", "jpg", "tif", "webp", "bmp"),
        rich_help_panel=FORMAT,
    ),
]
Quality = Annotated[
    int, typer.Option(metavar="1..100", help="JPEG quality; chroma is never subsampled.", rich_help_panel=FORMAT)
]
Flatten = Annotated[
    str | None,
    typer.Option(metavar="COLOR", help="Lay transparent images on a background.", rich_help_panel=FORMAT),
]
StripMetadata = Annotated[
    bool,
    flag("--strip-metadata", help="Drop EXIF, XMP and the like; the result is upright.", rich_help_panel=FORMAT),
]
Overwrite = Annotated[bool, flag("--overwrite", help="Replace existing outputs.", rich_help_panel=FILES)]
SkipExisting = Annotated[
    bool,
    flag("--skip-existing", help="Leave existing outputs; the default for folders.", rich_help_panel=FILES),
]
DryRun = Annotated[bool, flag("--dry-run", help="Print what would be done, and stop.", rich_help_panel=FILES)]
Color = Annotated[
    str,
    typer.Option(
        help="auto (as the file), gray or color.",
        autocompletion=choices("auto", "gray", "color"),
        rich_help_panel=FORMAT,
    ),
]
Tile = Annotated[
    str,
    typer.Option(
        metavar="auto|PIXELS",
        help="Largest side of a tile, a multiple of 8 from 192 up; 0: no tiles; auto: as --max-memory allows.",
        rich_help_panel=NETWORK,
    ),
]
MaxMemory = Annotated[
    Any,
    typer.Option(
        parser=parse_bytes,
        metavar="SIZE",
        help="Memory to stay within, such as 800M; without effect if --tile is a number.",
        show_default="2G, or 80 % of what there is",
        rich_help_panel=NETWORK,
    ),
]
FailFast = Annotated[bool, flag("--fail-fast", help="Stop at the first failure.", rich_help_panel=REPORT)]
Compare = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.png", help="Also write a picture of before and after; one input.", rich_help_panel=REPORT
    ),
]
Quiet = Annotated[
    bool, flag("-q", "--quiet", help="Say nothing on stderr but warnings and errors.", rich_help_panel=REPORT)
]
Report = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write all results as JSON to a file.", rich_help_panel=REPORT),
]


def _coarse(text: str) -> tuple[float, ...] | None:
    """Noise levels at half the size and at a quarter, or None for "auto"."""
    from mdrn_cli.levels import parse_number

    if text == AUTO:
        return None
    try:
        return tuple(parse_number(level) for level in text.split(","))
    except ValueError:
        raise UsageError(f"--coarse-sigma {text!r} is neither auto nor levels such as 10 or 10,5") from None


def denoise(
    inputs: Inputs,
    sigma: Sigma = AUTO,
    coarse_sigma: CoarseSigma = AUTO,
    strength: Strength = 1.0,
    white: White = None,
    output: Output = None,
    recursive: Recursive = False,
    in_place: InPlace = False,
    backup: Backup = "",
    format_: Format = None,
    quality: Quality = 95,
    flatten: Flatten = None,
    strip_metadata: StripMetadata = False,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    dry_run: DryRun = False,
    model: Model = "auto",
    color: Color = "auto",
    ensemble: Ensemble = False,
    tile: Tile = "auto",
    max_memory: MaxMemory = None,
    device: Device = "auto",
    precision: Precision = "auto",
    manifest: Manifests = None,
    _offline: Offline = False,
    fail_fast: FailFast = False,
    compare: Compare = None,
    report: Report = None,
    quiet: Quiet = False,
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
    from mdrn_cli.encoding import JPEG_QUALITY, SaveOptions
    from mdrn_cli.files import refuse_closed_stdout
    from mdrn_cli.hardware import memory_to_use
    from mdrn_cli.jobs import plan_jobs
    from mdrn_cli.levels import parse_sigma
    from mdrn_cli.pipes import PIPE
    from mdrn_cli.restore import DenoiseOptions

    level, factor = parse_sigma(sigma)
    options = DenoiseOptions(
        level,
        model,
        color=color,
        ensemble=ensemble,
        strength=strength,
        tile=parse_tile(tile),
        memory=memory_to_use() if max_memory is None else max_memory,
        device=device,
        precision=precision,
        manifests=tuple(manifest or ()),
        coarse=_coarse(coarse_sigma),
        white=white,
        factor=factor,
    )
    save = SaveOptions(quality, flatten, strip_metadata)
    naming = _naming(output, in_place, format_, _existing(overwrite, skip_existing), recursive, backup)
    to_stdout = naming.output == PIPE
    if as_json and to_stdout:
        raise UsageError("--json and the image would both go to stdout", "use --report FILE, or --output FILE")
    others: list[Path] = []
    jobs = plan_jobs(inputs, naming, others.append)
    warn_of_others(others)
    if quality != JPEG_QUALITY and jobs and all(job.kind not in ("", "JPEG") for job in jobs):
        print_warning("--quality is of JPEG, and no result is one")
    replaces_report = overwrite or (report is not None and is_replaceable(report, dry_run))
    _refuse_extras(jobs, compare, overwrite, report, replaces_report)
    run = Run(options, save, fail_fast, report, compare, quiet, as_json)
    if as_json or (to_stdout and not dry_run):
        refuse_closed_stdout()
    if dry_run:
        return run.foresee(jobs)
    if to_stdout and sys.stdout and sys.stdout.isatty():
        raise UsageError("refusing to write an image to a terminal", "redirect stdout to a file or a pipe")
    return run(jobs)


def _existing(overwrite: bool, skip_existing: bool) -> str:
    if overwrite and skip_existing:
        raise UsageError("--overwrite and --skip-existing exclude one another")
    return "overwrite" if overwrite else "skip" if skip_existing else "error"


def _naming(
    output: str | None, in_place: bool, format_: str | None, existing: str, recursive: bool, backup: str
) -> Naming:
    from mdrn_cli.naming import Naming
    from mdrn_cli.pipes import path_of

    suffix = f".{format_.lower().lstrip('.')}" if format_ else None
    path = None if output is None else path_of(output)
    is_folder = output is not None and output.endswith(("/", os.sep))
    return Naming(path, in_place, suffix, existing, recursive, is_folder, backup)


def _refuse_extras(
    jobs: Sequence[Job], compare: Path | None, overwrite: bool, report: Path | None, replaces_report: bool
) -> None:
    """Tell, before any work, what is wrong with the files that are to be written beside the results."""
    from mdrn_cli.collisions import refuse_extra
    from mdrn_cli.places import Places

    if compare:
        if len(jobs) != 1:
            raise UsageError(f"--compare is for one input, not {len(jobs)}")
        if not jobs[0].skip:  # else it is not written
            refuse_extra(compare, jobs, overwrite)
            require_png(compare)
    if report:
        refuse_extra(report, jobs, replaces_report)
        places = Places()
        if compare and places.of(compare) == places.of(report):
            raise UsageError(f"{report} cannot be both --compare and --report", "give one of them another name")
