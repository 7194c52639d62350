"""`mdrn train`."""

from __future__ import annotations

from typing import Annotated

import typer

from mdrn_cli.cli.options import Device, Precision
from mdrn_cli.cli.runs import (
    BatchSize,
    Clip,
    Color,
    Compile,
    Ema,
    Init,
    Iterations,
    LearningRate,
    Loss,
    MuonLearningRate,
    Optimizer,
    Output,
    PatchSize,
    Photographs,
    Resume,
    SaveEvery,
    Seed,
    Sigma,
    TimeBudget,
    Val,
    ValidateEvery,
    resolve_config,
    show_run,
)


def train(
    output: Output,
    data: Photographs = None,
    val: Val = None,
    color: Color = "gray",
    sigma: Sigma = 50.0,
    blocks: Annotated[int, typer.Option(help="MSABs per MSAG: 8 is MDRN, 2 is MDRN (2B).")] = 8,
    init: Init = None,
    iterations: Iterations = None,
    time_budget: TimeBudget = None,
    batch_size: BatchSize = 8,
    patch_size: PatchSize = 64,
    loss: Loss = "l1",
    optimizer: Optimizer = "muon",
    learning_rate: LearningRate = 1e-3,
    muon_learning_rate: MuonLearningRate = 0.02,
    ema: Ema = 0.999,
    clip: Clip = 1.0,
    seed: Seed = 0,
    validate_every: ValidateEvery = "5m",
    save_every: SaveEvery = "1m",
    device: Device = "auto",
    precision: Precision = "auto",
    compile_: Compile = None,
    resume: Resume = False,
) -> None:
    """Train a network on a folder tree of photographs.

    [bold]Examples[/]

      mdrn train --data photos --color gray --sigma 50 --blocks 2 --time-budget 60m --output run

      mdrn train --resume --output run
    """
    from mdrn_cli.training import run_train

    config = resolve_config(
        output,
        resume,
        data,
        val,
        init,
        color=color,
        sigma=sigma,
        blocks=blocks,
        iterations=iterations,
        time_budget=time_budget,
        batch_size=batch_size,
        patch_size=patch_size,
        loss=loss,
        optimizer=optimizer,
        learning_rate=learning_rate,
        muon_learning_rate=muon_learning_rate,
        ema=ema,
        clip=clip,
        seed=seed,
        validate_every=validate_every,
        save_every=save_every,
        device=device,
        precision=precision,
        compile=compile_,
    )
    show_run(run_train, config, output, resume)
