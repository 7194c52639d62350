"""`mdrn train`."""

from __future__ import annotations

from typing import Annotated

import typer

from mdrn_cli.cli.options import Device, Precision
from mdrn_cli.cli.runs import (
    BatchSize,
    CacheMemory,
    Clip,
    Color,
    Compile,
    ConfigFile,
    Ema,
    Halvings,
    Init,
    Iterations,
    LearningRate,
    Loss,
    MuonLearningRate,
    Optimizer,
    Output,
    Overwrite,
    PatchSize,
    Photographs,
    Preset,
    Resume,
    SaveEvery,
    Schedule,
    Seed,
    Sigma,
    Smoke,
    TimeBudget,
    Val,
    ValidateEvery,
    Warmup,
    build_config,
    resumed_config,
    settings,
    show_run,
)


def train(
    ctx: typer.Context,
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
    loss: Loss = "rmse",
    optimizer: Optimizer = "muon",
    learning_rate: LearningRate = 1e-3,
    muon_learning_rate: MuonLearningRate = 0.02,
    schedule: Schedule = "cosine",
    halvings: Halvings = 4,
    warmup: Warmup = 0.02,
    ema: Ema = 0.999,
    clip: Clip = 1.0,
    seed: Seed = 0,
    validate_every: ValidateEvery = "5m",
    save_every: SaveEvery = "1m",
    cache_memory: CacheMemory = None,
    device: Device = "auto",
    precision: Precision = "auto",
    compile_: Compile = None,
    preset: Preset = None,
    config: ConfigFile = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    smoke: Smoke = False,
) -> None:
    """Train a network on a folder tree of photographs.

    [bold]Examples[/]

      mdrn train --data photos --color gray --sigma 50 --blocks 2 --time-budget 60m --output run

      mdrn train --resume --output run
    """
    from mdrn_cli.trainconfig import CONFIG_KEYS
    from mdrn_cli.training import run_train

    made = resumed_config(ctx) if resume else build_config(settings(ctx, CONFIG_KEYS))
    show_run(run_train, made, output, resume)
