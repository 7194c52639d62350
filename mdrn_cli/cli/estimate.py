"""`mdrn estimate`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from mdrn_cli.cli.console import print_error, printable
from mdrn_cli.cli.options import Json
from mdrn_cli.errors import InputError

SCHEMA = "mdrn.estimate/1"


def estimate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Images; - for stdin.")],
    as_json: Json = False,
) -> int:
    """Estimate the noise level of images, on the 0-255 scale.

    [bold]Examples[/]

      mdrn estimate photo.jpg

      cat photo.jpg | mdrn estimate -
    """
    from mdrn_cli.image import read_picture
    from mdrn_cli.noise import estimate_sigma
    from mdrn_cli.pipes import readable

    failures: list[InputError] = []
    for file in files:
        try:
            sigma = estimate_sigma(read_picture(readable(file)).channels)
        except InputError as error:
            failures.append(error)
            if len(files) > 1:
                print_error(error.message, error.hint)
            continue
        value = None if math.isnan(sigma) else round(sigma, 3)
        if as_json:
            typer.echo(json.dumps({"schema": SCHEMA, "input": str(file), "sigma": value}))
        else:
            typer.echo(f"{printable(str(file))}\t{'too small to tell' if value is None else format(value, '.2f')}")
    if len(files) == 1 and failures:
        raise failures[0]
    return 0 if not failures else 4 if len(failures) == len(files) else 3
