"""The `mdrn` command: one file per subcommand, each parse -> config -> pipeline -> render."""

from __future__ import annotations

import gc
from typing import Annotated

import typer

from mdrn_cli import __version__
from mdrn_cli.cli import bench, cache, compare, data, denoise, distill, doctor, estimate, train, weights
from mdrn_cli.cli.boundary import run
from mdrn_cli.cli.console import echo
from mdrn_cli.cli.options import Command, flag

app = typer.Typer(
    name="mdrn",
    help="Denoise images with MDRN, measure denoisers, train your own.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("denoise")(denoise.denoise)
app.command("estimate")(estimate.estimate)
app.command("compare")(compare.compare)
app.command("bench")(bench.bench)
app.command("train")(train.train)
app.command("distill")(distill.distill)
app.add_typer(weights.app, name="weights")
app.add_typer(data.app, name="data")
app.add_typer(cache.app, name="cache")
app.command("doctor")(doctor.doctor)
for _command in (command for each in (app, weights.app, data.app, cache.app) for command in each.registered_commands):
    _command.cls = Command


def _version(asked: bool) -> None:
    if asked:
        echo(f"mdrn {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[bool, flag("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, flag("--debug", help="Show a traceback with an error.")] = False,
) -> None:
    """Denoise images with MDRN, measure denoisers, train your own."""


def main() -> int:
    """Run the command line; returns the exit code. The process is to end then."""
    try:
        return run(app)
    finally:
        # Python would look for cyclic garbage among all that torch has made, 0.2 s long.
        gc.freeze()
