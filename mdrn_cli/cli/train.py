"""`mdrn train`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from mdrn_cli.cli.console import format_duration, parse_duration, stderr
from mdrn_cli.cli.options import Device, Precision
from mdrn_cli.errors import UsageError

if TYPE_CHECKING:
    from mdrn_cli.training import Progress as TrainProgress
    from mdrn_cli.training import TrainConfig


def train(
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder.")],
    data: Annotated[Path | None, typer.Option(help="Folder tree of photographs to train on.")] = None,
    val: Annotated[Path | None, typer.Option(help="Folder of photographs to validate on.")] = None,
    color: Annotated[str, typer.Option(help="gray or color.")] = "gray",
    sigma: Annotated[float, typer.Option(help="Noise level on the 0-255 scale.")] = 50.0,
    blocks: Annotated[int, typer.Option(help="MSABs per MSAG: 8 is MDRN, 2 is MDRN (2B).")] = 8,
    init: Annotated[
        Path | None, typer.Option(help="Checkpoint to start from: other sigma, color mode or fewer blocks.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Length of the run in iterations.")] = None,
    time_budget: Annotated[
        Any, typer.Option(parser=parse_duration, metavar="DURATION", help="Length in time, such as 60m or 1h30m.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Patches a step.")] = 8,
    patch_size: Annotated[int, typer.Option(help="Side of a patch in pixels.")] = 64,
    optimizer: Annotated[str, typer.Option(help="muon, adamw or adam.")] = "muon",
    learning_rate: Annotated[float, typer.Option(help="Peak rate of AdamW and Adam.")] = 1e-3,
    muon_learning_rate: Annotated[float, typer.Option(help="Peak rate of Muon.")] = 0.02,
    ema: Annotated[float, typer.Option(help="Decay of the averaged weights.")] = 0.999,
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of weights, patches and noise.")] = 0,
    validate_every: Annotated[Any, typer.Option(parser=parse_duration, metavar="DURATION")] = "5m",
    save_every: Annotated[Any, typer.Option(parser=parse_duration, metavar="DURATION")] = "1m",
    device: Device = "auto",
    precision: Precision = "auto",
    compile_: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="torch.compile; on CUDA by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, with the options it began with.")
    ] = False,
) -> None:
    """Train a network on a folder tree of photographs.

    [bold]Examples[/]

      mdrn train --data photos --color gray --sigma 50 --blocks 2 --time-budget 60m --output run

      mdrn train --resume --output run
    """
    from mdrn_cli.runfolder import STATE_FILE, saved_config
    from mdrn_cli.training import TrainConfig

    if resume:
        config = TrainConfig(**saved_config(output))
    elif (output / STATE_FILE).exists():
        raise UsageError(f"{output} holds a run already", "go on with --resume, or choose another folder")
    elif data is None:
        raise UsageError("no photographs to train on", "give --data FOLDER")
    else:
        config = TrainConfig(
            data=str(data),
            val=str(val) if val else None,
            init=str(init) if init else None,
            color=color,
            blocks=blocks,
            sigma=sigma,
            iterations=iterations,
            time_budget=time_budget,
            batch_size=batch_size,
            patch_size=patch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            muon_learning_rate=muon_learning_rate,
            clip=clip,
            ema=ema,
            seed=seed,
            device=device,
            precision=precision,
            compile=compile_,
            validate_every=validate_every,
            save_every=save_every,
        )
    _run(config, output, resume)


def _run(config: TrainConfig, output: Path, resume: bool) -> None:
    from mdrn_cli.training import run_train

    with _bar() as bar:
        files = bar.add_task("reading", total=None, state="")
        task = bar.add_task("training", total=1.0, state="")

        def on_file(done: int, total: int) -> None:
            state = f"{done} of {total} photographs"
            bar.update(files, completed=done, total=total, state=state, visible=done < total)

        counters, photos = run_train(config, output, resume, _reporter(bar, task), on_file)
    for path, reason in photos.unreadable:
        stderr.print(f"warning: skipped {path}: {reason}", markup=False, highlight=False, soft_wrap=True)
    best = f", best validation PSNR {counters.best_psnr:.3f} dB" if counters.best_psnr is not None else ""
    stderr.print(
        f"{counters.iteration} iterations in {format_duration(counters.elapsed)}{best}; checkpoints in {output}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
    return Progress(*columns, console=stderr, disable=not stderr.is_terminal)


def _reporter(bar: Progress, task: Any) -> Callable[[TrainProgress], None]:
    """Shows progress as a bar on a terminal, as a line at each validation elsewhere."""

    def report(progress: TrainProgress) -> None:
        best = "" if progress.best_psnr is None else f" PSNR {progress.best_psnr:.3f}"
        state = (
            f"{progress.iteration} it  loss {progress.loss:.5f}{best}  {progress.rate:.2f} it/s  "
            f"ETA {format_duration(progress.remaining)}"
        )
        if progress.skipped:
            state += f"  {progress.skipped} skipped"
        bar.update(task, completed=progress.fraction, state=state)
        if progress.psnr is not None:
            stderr.print(
                f"iteration {progress.iteration}: PSNR {progress.psnr:.3f} dB, loss {progress.loss:.5f}, "
                f"{progress.rate:.2f} it/s, ETA {format_duration(progress.remaining)}",
                highlight=False,
            )

    return report
