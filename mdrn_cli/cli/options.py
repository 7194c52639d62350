"""Options that more than one command has, so that they are called and explained the same everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

NETWORK = "Network and machine"


def _complete_model(start: str) -> list[str]:
    """Names for the shell to offer."""
    from mdrn_cli.manifest import FAMILIES, load_manifest

    names = ("auto", *FAMILIES, *(record.name for record in load_manifest()))
    return [name for name in names if name.startswith(start)]


Model = Annotated[
    str,
    typer.Option(
        help="Checkpoint: auto, a family (mdrn, mdrn-2b), an exact name, a file or a run folder.",
        autocompletion=_complete_model,
        rich_help_panel=NETWORK,
    ),
]
Ensemble = Annotated[
    bool,
    typer.Option(
        "--ensemble", help="Average over 8 orientations (MDRN+): better, 8 times slower.", rich_help_panel=NETWORK
    ),
]
White = Annotated[
    float | None,
    typer.Option(
        metavar="VALUE",
        help="What is white, as the file has it: 4095 of 12 bits in 16. By default the most it can hold, of floats 1.",
    ),
]
Device = Annotated[str, typer.Option(envvar="MDRN_DEVICE", help="auto, cpu, cuda, mps, ...", rich_help_panel=NETWORK)]
Precision = Annotated[
    str, typer.Option(help="auto (bfloat16 where native), float32 or bfloat16.", rich_help_panel=NETWORK)
]
Data = Annotated[Path | None, typer.Option(envvar="MDRN_DATA", help="Folder that holds the benchmark sets.")]
Manifests = Annotated[
    list[str] | None, typer.Option("--manifest", metavar="URL|FILE", help="A further manifest of checkpoints.")
]


def options_given(ctx: typer.Context, environment: bool = True) -> set[str]:
    """Names of the parameters that the command line gives, or the environment where that counts."""
    sources = ("COMMANDLINE", "ENVIRONMENT") if environment else ("COMMANDLINE",)
    return {name for name in ctx.params if str(ctx.get_parameter_source(name)).endswith(sources)}


DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be fetched, from where, and stop.")]


def _forbid_network(offline: bool) -> bool:
    if offline:
        os.environ["MDRN_OFFLINE"] = "1"
    return offline


Offline = Annotated[
    bool, typer.Option("--offline", callback=_forbid_network, help="Never use the network; also MDRN_OFFLINE=1.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
