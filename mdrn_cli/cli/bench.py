"""`mdrn bench`."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mdrn_cli.cli.console import progress_bar, stderr, stdout
from mdrn_cli.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from mdrn_cli.bench import Result

SCHEMA = "mdrn.bench/1"
REFERENCE = "MDRN"
SHOWN_METHODS = ("BM3D", "CBM3D", "DnCNN", "FFDNet", "MDRN (2B)", "MDRN (2B) + HADS", REFERENCE, "MDRN+")


def bench(
    dataset: Annotated[
        str, typer.Argument(metavar="SET_OR_FOLDER", help="Set12, BSD68, CBSD68, Kodak24, ... or a folder.")
    ],
    sigma: Annotated[
        list[float] | None, typer.Option(help="Noise level, may be repeated; the paper's levels by default.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Checkpoint: auto, a family (mdrn, mdrn-2b), an exact name or a file.")
    ] = "auto",
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Average over 8 orientations (MDRN+).")] = False,
    data: Annotated[Path | None, typer.Option(envvar="MDRN_DATA", help="Folder that holds the benchmark sets.")] = None,
    color: Annotated[str | None, typer.Option(help="gray or color; the set's own by default.")] = None,
    tile: Annotated[int, typer.Option(help="Side of a tile in pixels; 0: whole images.")] = 0,
    device: Annotated[str, typer.Option(envvar="MDRN_DEVICE", help="auto, cpu, cuda, mps, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with a row per image.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, a row per noise level.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Measure PSNR and SSIM on clean images with synthetic noise, beside the published figures.

    [bold]Examples[/]

      MDRN_DATA=sets mdrn bench Set12

      mdrn bench my/photos --color color --sigma 50 --json
    """
    if as_json + as_csv + as_markdown > 1:
        raise UsageError("--json, --csv and --markdown exclude one another")
    if color not in (None, "gray", "color"):
        raise UsageError(f"color must be gray or color, not {color!r}")
    results = _measure(dataset, sigma, model, ensemble, data, color, tile, device, precision)
    if as_json:
        typer.echo(json.dumps(to_json(results)))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerows(_cells(results))
    elif as_markdown:
        header, *rows = _cells(results)
        typer.echo("\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)))
    else:
        stdout.print(_table(results))


def _measure(
    dataset: str,
    sigmas: Sequence[float] | None,
    model: str,
    ensemble: bool,
    data: Path | None,
    color: str | None,
    tile: int,
    device: str,
    precision: str,
) -> list[Result]:
    from mdrn_cli.bench import measure
    from mdrn_cli.datasets import PAPER_SIGMAS, open_dataset
    from mdrn_cli.denoise import check_sigma, load_engine

    for value in sigmas or ():
        check_sigma(value)
    opened = open_dataset(dataset, data, color)
    results: list[Result] = []
    with progress_bar("images") as bar:
        for value in sigmas or PAPER_SIGMAS[opened.color]:
            try:
                engine, record = load_engine(model, opened.color, value, device, precision)
            except (WeightsError, UsageError) as error:
                if sigmas:
                    raise
                stderr.print(f"[yellow]warning:[/] skipped: {error.message}", highlight=False, soft_wrap=True)
                missing = error
                continue
            task = bar.add_task(f"{opened.name} sigma {value:g}", total=len(opened.files))

            def on_image(done: int, _total: int, task: Any = task) -> None:
                bar.update(task, completed=done)

            name = record.name if record else model
            results.append(measure(opened, value, name, engine, ensemble, tile, on_image))
    if not results:
        raise missing
    return results


def to_json(results: Sequence[Result]) -> dict[str, Any]:
    """The object of `--json` (DESIGN section 5)."""
    from mdrn_cli.bench import PROTOCOL

    return {
        "schema": SCHEMA,
        "dataset": results[0].dataset,
        "color": results[0].color,
        "protocol": PROTOCOL,
        "results": [
            {
                "sigma": result.sigma,
                "model": result.model,
                "ensemble": result.ensemble,
                "psnr": _finite(result.mean("psnr")),
                "ssim": _finite(result.mean("ssim")),
                "noisy_psnr": _finite(result.mean("noisy_psnr")),
                "seconds": round(result.seconds, 3),
                "megapixels_per_second": round(result.megapixels_per_second, 4),
                "published": result.published,
                "images": [
                    {"file": row.file, "psnr": _finite(row.psnr), "ssim": _finite(row.ssim)} for row in result.images
                ],
            }
            for result in results
        ],
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return round(value, 4) if math.isfinite(value) else None


def _cells(results: Sequence[Result]) -> list[list[str]]:
    """The table as text: header, then a row for each result."""
    methods = [name for name in SHOWN_METHODS if any(name in result.published for result in results)]
    header = ["sigma", "model", "PSNR", "SSIM", "noisy", "MP/s", *methods]
    if REFERENCE in methods:
        header.append(f"ours - {REFERENCE}")
    rows = []
    for result in results:
        row = [
            f"{result.sigma:g}",
            result.model + ("+" if result.ensemble else ""),
            f"{result.mean('psnr'):.2f}",
            f"{result.mean('ssim'):.4f}",
            f"{result.mean('noisy_psnr'):.2f}",
            f"{result.megapixels_per_second:.2f}",
        ]
        row += [f"{result.published[name]:.2f}" if name in result.published else "-" for name in methods]
        if REFERENCE in methods:
            reference = result.published.get(REFERENCE)
            row.append(f"{result.mean('psnr') - reference:+.2f}" if reference is not None else "-")
        rows.append(row)
    return [header, *rows]


def _table(results: Sequence[Result]) -> Table:
    header, *rows = _cells(results)
    title = f"{results[0].dataset}, {results[0].color}, PSNR in dB; columns at the right as published"
    table = Table(title=title)
    for name in header:
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in rows:
        table.add_row(*row)
    return table
