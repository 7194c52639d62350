"""`mdrn denoise`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdrn_cli.cli.console import progress_bar, stderr
from mdrn_cli.cli.options import Device, Ensemble, Json, Manifests, Model, Offline, Precision
from mdrn_cli.errors import MdrnError

if TYPE_CHECKING:
    from mdrn_cli.denoise import DenoiseOptions, DenoiseResult

SCHEMA = "mdrn.denoise/1"


def denoise(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Noisy image: PNG, JPEG, TIFF, WebP or BMP.")],
    sigma: Annotated[float, typer.Option(help="Noise level on the 0-255 scale, such as 25 or 50.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Output file; INPUT with _mdrn added by default.")
    ] = None,
    model: Model = "auto",
    color: Annotated[str, typer.Option(help="auto (as the file), gray or color.")] = "auto",
    ensemble: Ensemble = False,
    tile: Annotated[int, typer.Option(help="Side of a tile in pixels, a multiple of 8; 0: no tiles.")] = 512,
    device: Device = "auto",
    precision: Precision = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    manifest: Manifests = None,
    _offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Remove noise from an image.

    [bold]Examples[/]

      mdrn denoise photo.png --sigma 25

      mdrn denoise photo.png -o clean.png --sigma 50 --ensemble
    """
    target = output or source.with_name(f"{source.stem}_mdrn{source.suffix}")
    try:
        from mdrn_cli.denoise import DenoiseOptions

        options = DenoiseOptions(
            sigma, model, color, ensemble, tile, device, precision, overwrite, tuple(manifest or ())
        )
        result = _run(source, target, options)
    except MdrnError as error:
        if as_json:
            failed = {"input": str(source), "output": str(target), "status": "failed", "error": error.message}
            typer.echo(json.dumps({"schema": SCHEMA, **failed}))
        raise
    if as_json:
        typer.echo(json.dumps(to_json(result)))
    else:
        stderr.print(
            f"{target}: {result.width}x{result.height} {result.mode}, sigma {result.sigma:g}, {result.model}, "
            f"{result.device} {result.precision}, {result.seconds:.1f} s",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _run(source: Path, target: Path, options: DenoiseOptions) -> DenoiseResult:
    from mdrn_cli.denoise import denoise_file

    with progress_bar("tiles") as bar:
        task = bar.add_task(source.name, total=None)

        def on_tile(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return denoise_file(source, target, options, on_tile)


def to_json(result: DenoiseResult) -> dict[str, Any]:
    """The object of `--json`."""
    from mdrn_cli.denoise import OVERLAP

    return {
        "schema": SCHEMA,
        "input": str(result.input),
        "output": str(result.output),
        "status": "done",
        "error": None,
        "width": result.width,
        "height": result.height,
        "mode": result.mode,
        "bit_depth": result.bit_depth,
        "sigma": {"value": result.sigma, "source": "option"},
        "model": {"name": result.model, "sha256": result.sha256},
        "device": result.device,
        "precision": result.precision,
        "tile": {"size": result.tile, "overlap": OVERLAP, "count": result.tiles},
        "seconds": round(result.seconds, 3),
        "warnings": [],
    }
