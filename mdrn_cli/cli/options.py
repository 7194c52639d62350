"""Options that more than one command has, so that they are called and explained the same everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mdrn_cli.errors import UsageError

NETWORK = "Network and machine"


class Command(TyperCommand):
    """A command whose options take no other for their value, as `-o $OUT --dry-run` has it where a variable is not set:
    a result named --dry-run would be written."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what follows the command.

        Raises:
            UsageError: the value of an option is the name of another.
        """
        if not ctx.resilient_parsing:  # as where the shell asks what may come next
            _refuse_swallowed(self.get_params(ctx), args)
        return super().parse_args(ctx, args)


def _refuse_swallowed(parameters: Iterable[Any], arguments: Sequence[str]) -> None:
    are_flags = {
        name: parameter.is_flag
        for parameter in parameters
        if parameter.param_type_name == "option"
        for name in (*parameter.opts, *parameter.secondary_opts)
    }

    def begins_as_option(text: str) -> bool:
        return text == "--" or text.partition("=")[0] in are_flags or (text[:2] != "--" and text[:2] in are_flags)

    def asks_for_value(text: str) -> bool:
        if text[:2] == "--" or len(text) < 2 or text[0] != "-":
            return are_flags.get(text) is False
        valued = (k for k, letter in enumerate(text[1:], 2) if are_flags.get(f"-{letter}") is False)
        return next(valued, 0) == len(text)  # else what follows the letter is its value

    following = iter(arguments)
    for argument in following:
        if argument == "--":
            return
        if asks_for_value(argument) and (value := next(following, None)) and begins_as_option(value):
            written = f"{argument}={value}" if argument[:2] == "--" else f"{argument}{value}"
            raise UsageError(
                f"{argument} is given no value, but the option {value}",
                f"an unset variable of the shell? If it is meant: {written}",
            )


def flag(*names: str, **about: Any) -> Any:
    """`typer.Option` of an option that takes no value; help of some versions of typer looks as if it took one."""
    return typer.Option(*names, metavar="", **about)


def offered(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What the shell offers where one of some names is to be given; they are asked for only then."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]  # typer goes by that name


def choices(*names: str) -> Callable[[str], list[str]]:
    """The same of names that never change."""
    return offered(lambda: names)


def path_given(text: str) -> Path:
    """A path where `-` is a pipe; see `pipes.path_of`."""
    from mdrn_cli.pipes import path_of

    return path_of(text)


def checkpoints() -> list[str]:
    """Names of the project's checkpoints."""
    from mdrn_cli.manifest import load_manifest

    return [record.name for record in load_manifest()]


def sets() -> Iterable[str]:
    """Names of the benchmark sets."""
    from mdrn_cli.datasets import benchmark_sets

    return benchmark_sets()


def _models() -> list[str]:
    from mdrn_cli.manifest import RESERVED

    return [*RESERVED, *checkpoints()]


Model = Annotated[
    str,
    typer.Option(
        help="Checkpoint: auto, a family (mdrn, mdrn-2b), an exact name, a file or a run folder.",
        autocompletion=offered(_models),
        rich_help_panel=NETWORK,
    ),
]
Ensemble = Annotated[
    bool,
    flag("--ensemble", help="Average over 8 orientations (MDRN+): better, 8 times slower.", rich_help_panel=NETWORK),
]
White = Annotated[
    float | None,
    typer.Option(
        metavar="VALUE",
        help="Value of white, such as 4095 for 12 bits in 16. By default the largest of the data type, 1 for floats.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        envvar="MDRN_DEVICE",
        help="auto, cpu, cuda, mps, ...",
        autocompletion=choices("auto", "cpu", "cuda", "mps"),
        rich_help_panel=NETWORK,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="auto (bfloat16 where native), float32 or bfloat16.",
        autocompletion=choices("auto", "float32", "bfloat16"),
        rich_help_panel=NETWORK,
    ),
]
Data = Annotated[Path | None, typer.Option(envvar="MDRN_DATA", help="Folder that holds the benchmark sets.")]
Manifests = Annotated[
    list[str] | None, typer.Option("--manifest", metavar="URL|FILE", help="A further manifest of checkpoints.")
]


def options_given(ctx: typer.Context, environment: bool = True) -> set[str]:
    """Names of the parameters that the command line gives, or the environment where that counts."""
    sources = ("COMMANDLINE", "ENVIRONMENT") if environment else ("COMMANDLINE",)
    return {name for name in ctx.params if str(ctx.get_parameter_source(name)).endswith(sources)}


DryRun = Annotated[bool, flag("--dry-run", help="Print what would be fetched, from where, and stop.")]


def _forbid_network(offline: bool) -> bool:
    if offline:
        os.environ["MDRN_OFFLINE"] = "1"
    return offline


Offline = Annotated[
    bool, flag("--offline", callback=_forbid_network, help="Never use the network; also MDRN_OFFLINE=1.")
]
Json = Annotated[bool, flag("--json", help="Print JSON instead of text.")]
