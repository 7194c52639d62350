"""`mdrn distill`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mdrn_cli.cli.runs import (
    Output,
    Resume,
    build_config,
    resumed_config,
    settings,
    show_run,
    with_run_options,
)
from mdrn_cli.errors import UsageError

if TYPE_CHECKING:
    from mdrn_cli.trainconfig import Distillation

DEFAULT_BLOCKS = {"hads": 2, "hmds": 8}


@with_run_options
def distill(
    ctx: typer.Context,
    output: Output,
    mode: Annotated[
        str | None, typer.Option(help="hads: a larger teacher; hmds: a teacher at a lower noise level.")
    ] = None,
    teacher_sigma: Annotated[
        float | None, typer.Option(help="Noise level of the teacher; the student's own for hads.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Name or file of the teacher; by default the bundled network of its noise level: for hads MDRN, "
            "for hmds one of the student's size, or of another where there is none."
        ),
    ] = None,
    weight: Annotated[float, typer.Option(help="Weight of the distillation loss at the start.")] = 0.1,
    final_weight: Annotated[float, typer.Option(help="The same at the end of the run.")] = 0.0,
    shared_noise: Annotated[
        bool, typer.Option(help="hmds: the teacher sees the student's noise scaled down, or noise of its own.")
    ] = True,
    blocks: Annotated[
        int | None, typer.Option(help="MSABs per MSAG of the student; 2 for hads, 8 for hmds by default.")
    ] = None,
    resume: Resume = False,
) -> None:
    """Train a network under a frozen teacher, as the paper's section 3.2 does.

    [bold]Examples[/]

      mdrn distill --mode hads --sigma 50 --data photos --time-budget 60m --output run

      mdrn distill --mode hmds --teacher-sigma 25 --data photos --time-budget 60m --output run
    """
    from mdrn_cli.distillation import run_distill
    from mdrn_cli.trainconfig import CONFIG_KEYS, DISTILLATION_KEYS

    if resume:
        made = resumed_config(ctx)
    else:
        values = settings(ctx, (*CONFIG_KEYS, *DISTILLATION_KEYS))
        ours = {key: values.pop(key) for key in DISTILLATION_KEYS}
        values["blocks"] = values["blocks"] or DEFAULT_BLOCKS.get(ours["mode"] or "", 8)
        made = build_config(values, _distillation(values["color"], values["sigma"], values["blocks"], **ours))
    show_run(run_distill, made, output, resume)


def _distillation(
    color: str,
    sigma: float,
    blocks: int,
    mode: str | None,
    teacher: str | None,
    teacher_sigma: float | None,
    weight: float,
    final_weight: float,
    shared_noise: bool,
) -> Distillation:
    """Finds the teacher's file; its noise level is checked against the student's when the run starts."""
    from mdrn_cli.distillation import find_teacher
    from mdrn_cli.trainconfig import Distillation

    if mode not in DEFAULT_BLOCKS:
        raise UsageError(f"--mode must be hads or hmds, not {mode!r}")
    if teacher_sigma is None:
        if mode == "hmds":
            raise UsageError("hmds needs the noise level of its teacher", "give --teacher-sigma")
        teacher_sigma = sigma
    path = find_teacher(teacher, mode, color, teacher_sigma, blocks)
    return Distillation(mode, str(path), teacher_sigma, weight, final_weight, shared_noise)
