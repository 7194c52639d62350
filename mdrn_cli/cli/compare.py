"""`mdrn compare`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdrn_cli.cli.console import echo, print_warning, printable
from mdrn_cli.cli.options import Json, White, flag, path_given
from mdrn_cli.errors import MdrnError, UsageError

if TYPE_CHECKING:
    from mdrn_cli.picture import Picture

SCHEMA = "mdrn.compare/1"


def compare(
    first: Annotated[Path, typer.Argument(parser=path_given, metavar="A", help="A picture; - for stdin.")],
    second: Annotated[Path, typer.Argument(parser=path_given, metavar="B", help="Another of the same size.")],
    reference: Annotated[
        Path | None,
        typer.Option(parser=path_given, metavar="C", help="Clean reference: PSNR and SSIM of both against it."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE.png", help="Write a picture.")] = None,
    overwrite: Annotated[bool, flag("--overwrite", help="Replace an existing output.")] = False,
    white: White = None,
    as_json: Json = False,
) -> None:
    """Put two pictures side by side with enlarged crops, and measure them.

    Without a reference, B is measured against A. PSNR and SSIM are those of 8 bits a channel, where anything is seen.

    [bold]Examples[/]

      mdrn compare photo.png photo_mdrn.png -o compared.png

      mdrn compare noisy.png clean.png --reference truth.png
    """
    from mdrn_cli.image import read_picture
    from mdrn_cli.levels import check_white
    from mdrn_cli.pipes import PIPE, readable
    from mdrn_cli.places import Places

    given = [path for path in (first, second, reference) if path]
    if given.count(PIPE) > 1:
        raise UsageError("standard input can be given once")
    if overwrite and not output:
        raise UsageError("--overwrite goes with --output", "mdrn compare A B -o compared.png --overwrite")
    if white is not None:
        check_white(white)
    if output:
        _refuse_sheet(output, overwrite)
        places = Places()
        if places.of(output) in map(places.of, given):
            raise UsageError(f"{output} is one of the pictures", "give the comparison another name")
    pictures, warnings = _whitened({path: read_picture(readable(path)) for path in given}, white)
    warnings += _told_of_colors(pictures)
    truth = reference or first
    measured = [path for path in (first, second) if path != truth] or [second]
    rows = [_measured(path, pictures, truth) for path in measured]
    if as_json:
        echo(json.dumps({"schema": SCHEMA, "reference": str(truth), "results": rows, "warnings": warnings}))
    else:
        for warning in warnings:
            print_warning(warning)
        for row in rows:
            echo(printable(f"{row['file']}: {_shown(row)} {truth}"))
    if output:
        write_sheet(output, [(_label(path, given), pictures[path]) for path in given], given)


def _whitened(read: dict[Path, Picture], white: float | None) -> tuple[dict[Path, Picture], list[str]]:
    """Pictures with what is white where all others have it, and what there is to tell of that. A white that is given is
    that of the pictures whose values may reach it: beside 12 bits in 16 may lie the JPEG that was made of them. Where
    none may, it is taken for that of all, which tells what is wrong with it."""
    from mdrn_cli.white import white_of, whitened

    may_reach = {path for path, picture in read.items() if white is not None and picture.may_reach(white)}
    pictures: dict[Path, Picture] = {}
    warnings: list[str] = []
    for path, picture in read.items():
        try:
            scaled = whitened(picture, white if path in may_reach or not may_reach else None)
            if scaled.depth == "float32" and path not in may_reach and white_of(scaled) > 1:
                scaled = scaled.warned("intensities beyond 1 count as 1: if white is more, give --white VALUE")
        except MdrnError as error:
            raise error.naming(path) from error.__cause__
        pictures[path] = scaled
        warnings += [f"{printable(str(path))}: {told}" for told in scaled.warnings[len(picture.warnings) :]]
    return pictures, warnings


def _told_of_colors(pictures: dict[Path, Picture]) -> list[str]:
    """A warning of pictures whose values do not mean the same colors."""
    from mdrn_cli.compare import are_colors_alike

    (first, picture), *others = pictures.items()
    return [
        f"{printable(str(path))}: its colors are not told as those of {printable(str(first))} are (ICC profile or its "
        "like); values are compared as they stand, and so are shown"
        for path, other in others
        if not are_colors_alike(picture, other)
    ]


def _label(path: Path, paths: Sequence[Path]) -> str:
    """The name of a file, with as many of its folders as tell it from others."""
    others = [other.parts for other in paths if other != path]
    counts = range(1, len(path.parts))
    enough = (n for n in counts if all(other[-n:] != path.parts[-n:] for other in others))
    return str(Path(*path.parts[-next(enough, len(path.parts)) :]))


def _measured(path: Path, pictures: dict[Path, Picture], truth: Path) -> dict[str, Any]:
    from mdrn_cli.compare import are_equal, measure_pictures

    psnr, ssim = measure_pictures(pictures[path], pictures[truth])
    return {
        "file": str(path),
        "psnr": round(psnr, 4) if math.isfinite(psnr) else None,  # JSON has no infinity
        "ssim": round(ssim, 6) if math.isfinite(ssim) else None,
        "equal": are_equal(pictures[path], pictures[truth]),
    }


def _shown(row: dict[str, Any]) -> str:
    if row["psnr"] is None:
        return "equal to" if row["equal"] else "in 8 bits equal, but in more bits or in alpha not, to"
    ssim = "" if row["ssim"] is None else f", SSIM {row['ssim']:.4f}"  # too small for its window
    return f"PSNR {row['psnr']:.2f} dB{ssim} against"


def _refuse_sheet(path: Path, overwrite: bool) -> None:
    from mdrn_cli.paths import refuse_existing, require_folder
    from mdrn_cli.pipes import PIPE

    if path == PIPE:
        raise UsageError("the picture goes to a file; stdout is for the figures", "name one that ends in .png")
    require_png(path)
    refuse_existing(path, overwrite)
    require_folder(path.parent)


def require_png(path: Path) -> None:
    """Hold what pictures side by side are to be written to to its format.

    Raises:
        UsageError: its name is not of a PNG, or of a folder.
    """
    from mdrn_cli.paths import is_folder

    if is_folder(path):
        raise UsageError(f"{path} is a folder, and the picture needs a name", "give one that ends in .png")
    if path.suffix.lower() != ".png":
        raise UsageError(f"the picture is a PNG, not {path.name}")


def write_sheet(path: Path, versions: Sequence[tuple[str, Picture]], files: Sequence[Path]) -> None:
    """Write pictures side by side: label and picture each. Whom the files may not be read by, it is not either.

    Raises:
        UsageError: sizes differ.
        MdrnError: the file cannot be written.
    """
    from mdrn_cli.compare import compare_pictures
    from mdrn_cli.files import write_atomically
    from mdrn_cli.pipes import PIPE

    write_atomically(path, compare_pictures(versions), like=[file for file in files if file != PIPE])
