"""`mdrn weights`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mdrn_cli.cli.console import stderr, stdout

app = typer.Typer(help="The checkpoints there are, and new ones from training runs.", no_args_is_help=True)

SCHEMA = "mdrn.weights/1"


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the checkpoints with what they are for and how they measured."""
    from mdrn_cli.manifest import load_manifest

    records = load_manifest()
    if as_json:
        typer.echo(json.dumps({"schema": SCHEMA, "checkpoints": [asdict(record) for record in records]}))
        return
    table = Table(title="Checkpoints")
    for column in ("name", "color", "sigma", "parameters", "MB", "PSNR in dB", "licence"):
        table.add_column(column)
    for record in records:
        measured = ", ".join(f"{name} {value:.2f}" for name, value in record.metrics.items())
        row = (record.name, record.color, f"{record.sigma:g}", f"{record.parameters:,}", f"{record.bytes / 1e6:.1f}")
        table.add_row(*row, measured, record.licence)
    stdout.print(table)


@app.command()
def pack(
    source: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="best.safetensors or last.safetensors of a run.")
    ],
    val: Annotated[Path, typer.Option(help="Folder on which float16 is held against float32.")],
    sets: Annotated[list[str], typer.Option("--set", help="Benchmark set to measure on; may be repeated.")],
    data: Annotated[Path | None, typer.Option(envvar="MDRN_DATA", help="Folder that holds the benchmark sets.")] = None,
    distilled: Annotated[str | None, typer.Option(help="hads or hmds, for a distilled network.")] = None,
) -> None:
    """Bundle a trained checkpoint as float16, measured and recorded in the manifest."""
    from mdrn_cli import release

    record, checks = release.pack(
        source, sets, str(val), data, distilled, lambda name: stderr.print(f"measuring {name}", highlight=False)
    )
    stderr.print(f"{record.name}: validation {checks}, {record.metrics}", markup=False, highlight=False, soft_wrap=True)
