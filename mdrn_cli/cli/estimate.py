"""`mdrn estimate`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mdrn_cli.cli.console import print_error, printable
from mdrn_cli.cli.options import Json
from mdrn_cli.cli.outcomes import warn_of_others
from mdrn_cli.errors import InputError

SCHEMA = "mdrn.estimate/1"


def estimate(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Images, folders of them, or - for stdin.")],
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Search folders at any depth.")] = False,
    as_json: Json = False,
) -> int:
    """Estimate the noise level of images, on the 0-255 scale.

    [bold]Examples[/]

      mdrn estimate photo.jpg

      mdrn estimate -r photos --json

      cat photo.jpg | mdrn estimate -
    """
    from mdrn_cli.image import read_picture
    from mdrn_cli.noise import estimate_sigma
    from mdrn_cli.pipes import readable

    files, failures = _files(inputs, recursive)
    count = len(files) + len(failures)
    for error in failures if count > 1 else ():
        print_error(error.message, error.hint)
    for file in files:
        try:
            picture = read_picture(readable(file))
            sigma = estimate_sigma(picture.channels, picture.seen)
        except InputError as error:
            failures.append(error)
            if count > 1:
                print_error(error.message, error.hint)
            continue
        value = None if math.isnan(sigma) else round(sigma, 3)
        if as_json:
            typer.echo(json.dumps({"schema": SCHEMA, "input": str(file), "sigma": value}))
        else:
            typer.echo(f"{printable(str(file))}\t{'too small to tell' if value is None else format(value, '.2f')}")
    if count == 1 and failures:
        raise failures[0]
    return 0 if not failures else 4 if len(failures) == count else 3


def _files(inputs: Sequence[Path], recursive: bool) -> tuple[list[Path], list[InputError]]:
    """The images of the inputs, and what is wrong with folders among them."""
    from mdrn_cli.files import is_folder
    from mdrn_cli.image import find_images

    files: list[Path] = []
    failures: list[InputError] = []
    others: list[Path] = []
    for source in inputs:
        if not is_folder(source):
            files.append(source)
            continue
        unreadable: list[OSError] = []
        found = find_images(source, recursive, unreadable.append, others.append)
        files += found
        failures += [InputError(f"cannot list {error.filename} ({error.strerror})") for error in unreadable]
        if not found and not unreadable:
            hint = "" if recursive else "use --recursive for nested folders"
            failures.append(InputError(f"no images in {source}", hint))
    warn_of_others(others)
    return files, failures
