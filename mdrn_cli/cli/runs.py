"""What `mdrn train` and `mdrn distill` share: their options, and a run shown as it goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from mdrn_cli.cli.console import format_duration, parse_duration, stderr
from mdrn_cli.errors import UsageError

if TYPE_CHECKING:
    from mdrn_cli.patches import PhotoFolder
    from mdrn_cli.runfolder import Counters
    from mdrn_cli.training import OnFile, Report, TrainConfig
    from mdrn_cli.training import Progress as TrainProgress

Runner = Callable[["TrainConfig", Path, bool, "Report", "OnFile"], "tuple[Counters, PhotoFolder]"]

Output = Annotated[Path, typer.Option("-o", "--output", help="Run folder.")]
Photographs = Annotated[Path | None, typer.Option(help="Folder tree of photographs to train on.")]
Val = Annotated[Path | None, typer.Option(help="Folder of photographs to validate on.")]
Color = Annotated[str, typer.Option(help="gray or color.")]
Sigma = Annotated[float, typer.Option(help="Noise level on the 0-255 scale.")]
Init = Annotated[Path | None, typer.Option(help="Checkpoint to start from: other sigma, color mode or fewer blocks.")]
Iterations = Annotated[int | None, typer.Option(help="Length of the run in iterations.")]
TimeBudget = Annotated[
    Any, typer.Option(parser=parse_duration, metavar="DURATION", help="Length in time, such as 60m or 1h30m.")
]
BatchSize = Annotated[int, typer.Option(help="Patches a step.")]
PatchSize = Annotated[int, typer.Option(help="Side of a patch in pixels.")]
Loss = Annotated[str, typer.Option(help="l1 (the paper's) or rmse (per patch; nearer to PSNR).")]
Optimizer = Annotated[str, typer.Option(help="muon, adamw or adam.")]
LearningRate = Annotated[float, typer.Option(help="Peak rate of AdamW and Adam.")]
MuonLearningRate = Annotated[float, typer.Option(help="Peak rate of Muon.")]
Ema = Annotated[float, typer.Option(help="Decay of the averaged weights.")]
Clip = Annotated[float, typer.Option(help="Largest norm of the gradient.")]
Seed = Annotated[int, typer.Option(help="Of weights, patches and noise.")]
ValidateEvery = Annotated[
    Any, typer.Option(parser=parse_duration, metavar="DURATION", help="Time between two validations.")
]
SaveEvery = Annotated[Any, typer.Option(parser=parse_duration, metavar="DURATION", help="Time between two saves.")]
Compile = Annotated[bool | None, typer.Option("--compile/--no-compile", help="torch.compile; on CUDA by default.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in the folder, with the options it began with.")
]


def resolve_config(
    output: Path, resume: bool, data: Path | None, val: Path | None, init: Path | None, **options: Any
) -> TrainConfig:
    """The run's configuration: from the run folder when resuming, else from the options.

    Raises:
        UsageError: the folder holds a run already, or there is no data.
        MdrnError: there is no run to resume.
    """
    from mdrn_cli.runfolder import STATE_FILE, saved_config
    from mdrn_cli.training import TrainConfig

    if resume:
        return TrainConfig.from_dict(saved_config(output))
    if (output / STATE_FILE).exists():
        raise UsageError(f"{output} holds a run already", "go on with --resume, or choose another folder")
    if data is None:
        raise UsageError("no photographs to train on", "give --data FOLDER")
    paths = {"data": str(data), "val": str(val) if val else None, "init": str(init) if init else None}
    return TrainConfig(**paths, **options)  # type: ignore[arg-type]


def show_run(runner: Runner, config: TrainConfig, output: Path, resume: bool) -> None:
    """Run it with a bar on a terminal and a line at each validation elsewhere; say how it ended."""
    with _bar() as bar:
        files = bar.add_task("reading", total=None, state="")
        task = bar.add_task("training", total=1.0, state="")

        def on_file(done: int, total: int) -> None:
            state = f"{done} of {total} photographs"
            bar.update(files, completed=done, total=total, state=state, visible=done < total)

        counters, photos = runner(config, output, resume, _reporter(bar, task), on_file)
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
