"""A training run shown as it goes, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn

from mdrn_cli.cli.console import format_bytes, format_duration, print_note, print_warning, shows_bars, stderr
from mdrn_cli.parallel import launched

if TYPE_CHECKING:
    from mdrn_cli.photographs import PhotoFolder, Reading
    from mdrn_cli.runlog import Progress as TrainProgress
    from mdrn_cli.runlog import Report
    from mdrn_cli.runstate import Counters
    from mdrn_cli.trainconfig import TrainConfig

Runner = Callable[["TrainConfig", Path, bool, "Report", "Reading | None"], "tuple[Counters, PhotoFolder]"]

LINE_EVERY = 60.0
"""Seconds between two lines of progress where there is no bar."""


def show_run(runner: Runner, config: TrainConfig, output: Path, resume: bool) -> None:
    """Run it with a bar on a terminal, with a line a minute elsewhere, and a line at each validation; say how it ended.
    Of several processes only the first says anything."""
    if not launched().first:
        runner(config, output, resume, lambda _progress: None, None)
        return
    with _bar() as bar:
        reading = _reading(bar, config.patch_size)
        task = bar.add_task("training", total=1.0, state="")
        show, moments = _reporter(bar, task), 0

        def report(progress: TrainProgress) -> None:
            nonlocal moments
            moments += 1
            show(progress)

        counters, _ = runner(config, output, resume, report, reading)
    best = f", best validation PSNR {counters.best_psnr:.3f} dB" if counters.best_psnr is not None else ""
    skipped = f" ({counters.skipped} of them skipped)" if counters.skipped else ""
    many = "iteration" if counters.iteration == 1 else "iterations"
    done = f"{counters.iteration} {many}{skipped} in {format_duration(counters.elapsed)}{best}"
    print_note(f"{done}; checkpoints in {output}")
    if resume and not moments:
        print_note("it had been finished: a larger --iterations or --time-budget has it go on")


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
    return Progress(*columns, console=stderr, disable=not shows_bars())


def _reading(bar: Progress, patch_size: int) -> Reading:
    """Shows how photographs are read: memory first, then a bar, then what is left out."""
    from mdrn_cli.photographs import Reading

    task = bar.add_task("reading", total=None, state="", visible=False)

    def planned(count: int, size: int, path: Path | None) -> None:
        where = f"mapped from {path}" if path else "in memory"
        print_note(f"{count} photographs, {format_bytes(size)} decoded, {where}")

    def file(done: int, total: int) -> None:
        state = f"{done} of {total} photographs"
        bar.update(task, completed=done, total=total, state=state, visible=done < total)

    skipped: set[Path] = set()

    def unreadable(path: Path, reason: str) -> None:
        if path not in skipped:  # those of a folder to train and to validate on are read for both
            skipped.add(path)
            print_warning(f"skipped {path}: {reason.removeprefix(f'{path} ')}")

    def too_small(count: int) -> None:
        if count:
            print_warning(f"{count} photographs are smaller than a patch of {patch_size} pixels and left out")

    def held_out(count: int) -> None:
        print_note(f"{count} photographs to validate on are inside --data, and not trained on")

    def changed() -> None:
        print_warning("the photographs are not those that the run began with")

    def validated_otherwise() -> None:
        print_warning("the photographs to validate on are others than before: the best weights are chosen anew")

    def validated_on_own(count: int) -> None:
        print_note(f"{count} photographs of --data, which are trained on, are validated on: others would tell more")

    return Reading(planned, file, unreadable, too_small, held_out, changed, validated_otherwise, validated_on_own)


def _reporter(bar: Progress, task: Any) -> Callable[[TrainProgress], None]:
    """Shows a moment of a run: in the bar; as a line after a validation, and now and then where there is no bar."""
    told = time.monotonic()

    def report(progress: TrainProgress) -> None:
        nonlocal told
        best = "" if progress.best_psnr is None else f" PSNR {progress.best_psnr:.3f}"
        loss, rate = f"loss {progress.loss:.5f}", f"{progress.rate:.2f} it/s"
        left = f"ETA {format_duration(progress.remaining)}"
        state = f"{progress.iteration} it  {loss}{best}  {rate}  {left}"
        if progress.skipped:
            state += f"  {progress.skipped} skipped"
        bar.update(task, completed=progress.fraction, state=state)
        now = time.monotonic()
        if progress.psnr is None and (shows_bars() or now - told < LINE_EVERY):
            return
        told = now
        psnr = "" if progress.psnr is None else f"PSNR {progress.psnr:.3f} dB, "
        print_note(f"iteration {progress.iteration}: {psnr}{loss}, {rate}, {left}")

    return report
