"""`mdrn estimate`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdrn_cli.cli.console import echo, print_error, print_warning, printable
from mdrn_cli.cli.options import Json, White, flag, path_given
from mdrn_cli.cli.outcomes import at_smaller_sizes, ends_to_json, warn_of_others
from mdrn_cli.errors import MdrnError, exit_code_of

if TYPE_CHECKING:
    from mdrn_cli.blocknoise import Noise

SCHEMA = "mdrn.estimate/1"


def estimate(
    inputs: Annotated[
        list[Path],
        typer.Argument(parser=path_given, metavar="INPUT...", help="Images, folders of them, or - for stdin."),
    ],
    recursive: Annotated[bool, flag("-r", "--recursive", help="Search folders at any depth.")] = False,
    white: White = None,
    as_json: Json = False,
) -> int:
    """Estimate the noise level of images, on the 0-255 scale; of coarse grain also at half the size and at a quarter.

    [bold]Examples[/]

      mdrn estimate photo.jpg

      mdrn estimate -r photos --json

      cat photo.jpg | mdrn estimate -
    """
    from mdrn_cli.estimation import estimate_noise
    from mdrn_cli.files import as_mdrn_error
    from mdrn_cli.image import read_picture
    from mdrn_cli.levels import check_white
    from mdrn_cli.pipes import readable

    if white is not None:
        check_white(white)
    files, failures = _files(inputs, recursive)
    count = len(files) + len(failures)
    for source, error in failures:
        _show_failure(source, error, as_json, count)
    for file in files:
        try:
            found = estimate_noise(read_picture(readable(file)), white)
            coarse = found.at_smaller_sizes()
        except Exception as raised:
            error = as_mdrn_error(raised, file, "read")
            failures.append((file, error))
            _show_failure(file, error, as_json, count)
            continue
        if as_json:
            echo(json.dumps(_to_json(file, None, found.noise, coarse, found.warnings)))
            continue
        told = "too small to tell" if math.isnan(found.noise.sigma) else format(found.noise.sigma, ".2f")
        grain = f"\t{at_smaller_sizes(coarse)}" if coarse else ""
        echo(f"{printable(str(file))}\t{told}{grain}")
        for warning in found.warnings:
            print_warning(f"{printable(str(file))}: {warning}")
    if count == 1 and failures:
        raise failures[0][1]
    return exit_code_of([error for _, error in failures], count)


def _show_failure(source: Path, error: MdrnError, as_json: bool, count: int) -> None:
    """JSON on stdout, and lines on stderr; the error of an only input is left to the caller."""
    if as_json:
        echo(json.dumps(_to_json(source, error, None)))
    if count > 1:
        print_error(error)


def _to_json(
    source: Path,
    error: MdrnError | None,
    noise: Noise | None,
    coarse: Sequence[float] = (),
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "input": str(source),
        "status": "failed" if error else "done",
        "error": error.message if error else None,
        "sigma": None if noise is None or math.isnan(noise.sigma) else round(noise.sigma, 3),
        **ends_to_json(noise.by_intensity if noise else None),
        "coarse": [round(level, 3) for level in coarse],
        "warnings": list(warnings),
    }


def _files(inputs: Sequence[Path], recursive: bool) -> tuple[list[Path], list[tuple[Path, MdrnError]]]:
    """The images of the inputs, each once, and folders among them with what is wrong with each."""
    from mdrn_cli.formats import images_of, without_images
    from mdrn_cli.jobs import once, spelled_out
    from mdrn_cli.paths import is_folder

    files: list[Path] = []
    failures: list[tuple[Path, MdrnError]] = []
    others: list[Path] = []
    for source in inputs:
        if not is_folder(source):
            files.append(source)
            continue
        found, problems = images_of(source, recursive, others.append)
        files += found
        failures += problems if found or problems else [(source, without_images(source, recursive))]
    warn_of_others(others)
    return once(files, spelled_out), failures
