"""`mdrn distill`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdrn_cli.cli.console import print_note
from mdrn_cli.cli.options import checkpoints, choices, flag, offered
from mdrn_cli.cli.runs import (
    Resume,
    resumed_config,
    run_folder,
    settings,
    with_run_options,
)
from mdrn_cli.cli.runshow import show_run
from mdrn_cli.errors import UsageError
from mdrn_cli.parallel import launched

if TYPE_CHECKING:
    from mdrn_cli.trainconfig import TrainConfig

DEFAULT_BLOCKS = {"hads": 2, "hmds": 8}


@with_run_options
def distill(
    ctx: typer.Context,
    mode: Annotated[
        str | None,
        typer.Option(
            help="hads: a larger teacher; hmds: a teacher at a lower noise level.",
            autocompletion=choices("hads", "hmds"),
        ),
    ] = None,
    teacher_sigma: Annotated[
        float | None,
        typer.Option(
            help="Noise level of the teacher; by default that of --teacher, else the student's for hads, and for hmds "
            "25 (for a student at 50 in gray) or 50 (at 70 in color)."
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Name, file or run folder of the teacher; by default a bundled network of its noise level: for hads "
            "MDRN, for hmds one of the student's size, if there is one.",
            autocompletion=offered(checkpoints),
        ),
    ] = None,
    weight: Annotated[float, typer.Option(help="Weight of the distillation loss at the start.")] = 0.1,
    final_weight: Annotated[float, typer.Option(help="The same at the end of the run.")] = 0.0,
    shared_noise: Annotated[
        bool, flag(help="hmds: the teacher sees the student's noise scaled down, or noise of its own.")
    ] = True,
    soft_target: Annotated[
        float,
        typer.Option(metavar="0..1", help="Share of the teacher's image in the student's target."),
    ] = 0.0,
    teacher_every: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Run the teacher every N steps; the others use patches that it has restored again, turned. "
            "Needs --soft-target.",
        ),
    ] = 1,
    blocks: Annotated[
        int | None, typer.Option(help="MSABs per MSAG of the student; 2 for hads, 8 for hmds by default.")
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(
            help="Noise level on the 0-255 scale; by default for hads the teacher's, for hmds 50, in color 70."
        ),
    ] = None,
    resume: Resume = False,
) -> None:
    """Train a network under a frozen teacher, as the paper's section 3.2 does; --preset paper has its loss, too.

    [bold]Examples[/]

      mdrn distill --mode hmds --teacher-sigma 25 --data photos --time-budget 60m --output run

      mdrn distill --mode hads --data photos --time-budget 60m --output run

      mdrn distill --mode hads --teacher run8 --data photos --time-budget 60m --output run

      mdrn distill --resume run
    """
    from mdrn_cli.distillation import default_sigma, found_again, run_distill
    from mdrn_cli.trainconfig import CONFIG_KEYS, DISTILLATION_KEYS, MODES, TrainConfig

    if resume:
        made = found_again(resumed_config(ctx), run_folder(ctx))
    else:
        values = settings(ctx, (*CONFIG_KEYS, *DISTILLATION_KEYS))
        ours = {key: values.pop(key) for key in DISTILLATION_KEYS}
        if ours["mode"] not in MODES:
            given = f", not {ours['mode']!r}" if ours["mode"] else ""
            raise UsageError(
                f"--mode must be hads or hmds{given}", "hads: a larger teacher; hmds: a teacher at a lower noise level"
            )
        if values["blocks"] is None:
            values["blocks"] = DEFAULT_BLOCKS[ours["mode"]]
        if values["sigma"] is None:
            named = ours["teacher"] if isinstance(ours["teacher"], str) else None  # what else it may be is told below
            values["sigma"] = default_sigma(ours["mode"], named, values["color"], ours["teacher_sigma"])
        made = _with_teacher(TrainConfig(**values), ours)
    output = run_folder(ctx)
    _show_teacher(made)
    show_run(run_distill, made, output, resume)


def _show_teacher(config: TrainConfig) -> None:
    """Say who teaches; of several processes the first."""
    from mdrn_cli.checkpoint import load_checkpoint

    if not config.distillation or not launched().first:
        return
    path = Path(config.distillation.teacher)
    teacher = load_checkpoint(path)
    name, blocks = teacher.record.get("name", path), teacher.config.blocks
    print_note(f"teacher {name}: {blocks} blocks, sigma {teacher.sigma:g}")


def _with_teacher(student: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """Finds the teacher's file; whether it goes with the student is checked when the run starts."""
    from mdrn_cli.distillation import check_levels, default_teacher_sigma, find_teacher
    from mdrn_cli.trainconfig import Distillation

    name, mode = values["teacher"], values["mode"]
    if values["teacher_sigma"] is None:
        told = default_teacher_sigma(name, student.color, student.sigma) if mode == "hmds" else student.sigma
        if told is None:
            raise UsageError("hmds needs the noise level of its teacher", "give --teacher-sigma")
        values["teacher_sigma"] = told
    # Checked before its teacher is looked for.
    distillation = Distillation(**{**values, "teacher": "" if name is None else name})
    check_levels(mode, distillation.teacher_sigma, student.sigma)
    path = find_teacher(name, mode, student.color, distillation.teacher_sigma, student.blocks)
    return replace(student, distillation=replace(distillation, teacher=str(path)))
