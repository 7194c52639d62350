"""`mdrn train`."""

from __future__ import annotations

from typing import Annotated

import typer

from mdrn_cli.cli.runs import (
    Resume,
    resumed_config,
    run_folder,
    settings,
    with_run_options,
)
from mdrn_cli.cli.runshow import show_run


@with_run_options
def train(
    ctx: typer.Context,
    blocks: Annotated[int, typer.Option(help="MSABs per MSAG: 8 is MDRN, 2 is MDRN (2B).")] = 8,
    resume: Resume = False,
) -> None:
    """Train a network on a folder tree of photographs.

    [bold]Examples[/]

      mdrn train --data photos --color gray --sigma 50 --blocks 2 --time-budget 60m --output run

      mdrn train --resume run
    """
    from mdrn_cli.trainconfig import CONFIG_KEYS, TrainConfig
    from mdrn_cli.training import run_train

    made = resumed_config(ctx) if resume else TrainConfig(**settings(ctx, CONFIG_KEYS))
    show_run(run_train, made, run_folder(ctx), resume)
