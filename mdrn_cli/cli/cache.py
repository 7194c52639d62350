"""`mdrn cache`: what the cache folder holds, and emptying it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mdrn_cli.cli.console import echo, format_bytes, print_note, print_warning, printable, raise_all
from mdrn_cli.cli.options import Json, flag, offered
from mdrn_cli.errors import MdrnError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mdrn_cli.cache import Cache
    from mdrn_cli.cachecontent import Kept

app = typer.Typer(help="What the cache folder holds, and emptying it.", no_args_is_help=True)

SCHEMA = "mdrn.cache/1"


def _kinds() -> tuple[str, ...]:
    from mdrn_cli.cachecontent import KINDS

    return KINDS


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List what the cache holds: checkpoints, images of benchmark sets, photographs decoded for training, and what
    libraries make once."""
    from mdrn_cli.cache import Cache
    from mdrn_cli.cachecontent import KINDS, kept_in

    cache = Cache()
    cache.refuse_file()
    found = kept_in(cache)
    if as_json:
        _print_json(cache, found)
        return
    echo(printable(str(cache.root)))
    for kind in KINDS:
        of_kind = [kept for kept in found if kept.kind == kind]
        echo(f"{kind}: {len(of_kind)}, {format_bytes(sum(kept.bytes for kept in of_kind))}")
        for kept in of_kind if kind == "photographs" else ():
            echo(f"    {_told(kept)}: {format_bytes(kept.bytes)}")


@app.command()
def clear(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND...", help="checkpoints, sets, photographs or libraries.", autocompletion=offered(_kinds)
        ),
    ] = None,
    everything: Annotated[bool, flag("--all", help="Remove all that mdrn keeps there.")] = False,
    dry_run: Annotated[bool, flag("--dry-run", help="Print what would be removed, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Remove kinds of things from the cache and say how much that freed; what another process is making stays.
    Checkpoints that were imported by hand have to be brought again."""
    from mdrn_cli.cache import Cache
    from mdrn_cli.cachecontent import KINDS, kept_in, remove

    if bool(kinds) == everything:
        raise UsageError("give either kinds or --all", f"kinds are: {', '.join(KINDS)}")
    for kind in kinds or ():
        if kind not in KINDS:
            raise UsageError(f"the cache has no {kind!r}", f"kinds are: {', '.join(KINDS)}")
    cache = Cache()
    cache.refuse_file()
    found = kept_in(cache)
    wanted = [kept for kept in found if everything or kept.kind in (kinds or ())]
    removed: list[Kept] = []
    in_use: list[Kept] = []
    problems: list[MdrnError] = []
    for kept in wanted:
        try:
            (removed if dry_run or remove(kept) else in_use).append(kept)
        except MdrnError as error:
            problems.append(error)
    if in_use:
        print_warning(f"{len(in_use)} left, which other processes are making: {', '.join(map(_told, in_use))}")
    if as_json:
        _print_json(cache, [kept for kept in found if kept not in removed], removed, dry_run)
    elif dry_run:
        for kept in removed:
            echo(f"{printable(str(kept.path))}\t{kept.bytes}")
    else:
        print_note(f"{format_bytes(sum(kept.bytes for kept in removed))} freed in {cache.root}")
    raise_all(problems)


def _told(kept: Kept) -> str:
    return printable(kept.name) or "not finished"


def _print_json(cache: Cache, kept: list[Kept], removed: Sequence[Kept] = (), dry_run: bool = False) -> None:
    """Print what is in the cache, or would be, when some of it is removed."""
    freed = sum(item.bytes for item in removed)
    about = {"schema": SCHEMA, "folder": str(cache.root), "kept": [*map(_to_json, kept)]}
    echo(json.dumps({**about, "dry_run": dry_run, "bytes": freed, "removed": [*map(_to_json, removed)]}))


def _to_json(kept: Kept) -> dict[str, object]:
    return {"kind": kept.kind, "name": kept.name, "path": str(kept.path), "bytes": kept.bytes}
