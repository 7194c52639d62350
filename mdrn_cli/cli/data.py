"""`mdrn data`: the benchmark sets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mdrn_cli.cli.console import bytes_bar, echo, format_bytes, not_had, print_note, printable, raise_all
from mdrn_cli.cli.options import Data, DryRun, Json, Offline, offered, sets
from mdrn_cli.errors import FetchError, MdrnError, UsageError, hint_of

if TYPE_CHECKING:
    from pathlib import Path

    from mdrn_cli.datasets import BenchmarkSet, Found

app = typer.Typer(help="The benchmark sets: what they are, where they lie.", no_args_is_help=True)

SCHEMA = "mdrn.data/1"
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="SET...", help="Sets, such as Set12; all by default.", autocompletion=offered(sets)),
]


@app.command("list")
def list_(data: Data = None, as_json: Json = False) -> None:
    """List the sets with size, source, licence and where they are."""
    rows = _found(None, data)
    if as_json:
        _print_json(rows)
        return
    for known, found in rows:
        kind = known.color if known.clean else f"{known.color}, real noise"
        place = f" in {printable(str(found.place))}" if found.place else ""
        echo(
            f"{known.name}: {len(known.items)} images, {kind}, {format_bytes(known.bytes)}, {found.state}{place}\n"
            f"    licence: {known.licence}; from {known.source}"
        )


@app.command()
def fetch(names: Names = None, dry_run: DryRun = False, data: Data = None, _offline: Offline = False) -> None:
    """Bring sets into the cache, unless they are under --data or MDRN_DATA."""
    from mdrn_cli.datasets import fetch_set

    rows = _found(names, data)
    wanted = [(known, found) for known, found in rows if found.state != "on disk"]
    if dry_run:
        for item in (item for _, found in wanted for item in found.missing):
            echo(f"{item.name}\t{item.bytes}\t{item.sources[0]}")
        return
    failed: list[MdrnError] = []
    with bytes_bar() as bar:
        for known, found in wanted:
            task = bar.add_task(known.name, total=sum(item.bytes for item in found.missing))
            try:
                fetch_set(known, found.missing, lambda count, task=task: bar.advance(task, count))  # type: ignore[misc]
            except FetchError as error:
                failed.append(error)
    on_disk = len(rows) - len(wanted)
    print_note(f"{len(wanted) - len(failed)} in the cache{not_had(failed)}, {on_disk} on disk elsewhere")
    raise_all(failed)


@app.command()
def verify(names: Names = None, data: Data = None, as_json: Json = False) -> None:
    """Check sets file by file; exit code 5 if one asked for is not whole."""
    rows = _found(names, data)
    if as_json:
        _print_json(rows)
    else:
        for known, found in rows:
            echo(f"{known.name}\t{found.state}\t{known.bytes}")
    bad = [known.name for known, found in rows if names and not found.verified]
    if bad:
        raise FetchError(f"not whole: {', '.join(bad)}", "bring them with `mdrn data fetch`")


def _found(names: list[str] | None, data: Path | None) -> list[tuple[BenchmarkSet, Found]]:
    """The sets asked for, or all, and where they are."""
    from mdrn_cli.datasets import find_set

    return [(known, find_set(known, data)) for known in _sets(names)]


def _sets(names: list[str] | None) -> list[BenchmarkSet]:
    from mdrn_cli.datasets import benchmark_sets, named_set

    found = []
    for name in {name.lower(): name for name in names or benchmark_sets()}.values():
        known = named_set(name)
        if known is None:
            raise UsageError(f"no benchmark set {name!r}", hint_of(name, benchmark_sets(), "sets are"))
        found.append(known)
    return found


def _print_json(rows: list[tuple[BenchmarkSet, Found]]) -> None:
    echo(json.dumps({"schema": SCHEMA, "sets": [_to_json(known, found) for known, found in rows]}))


def _to_json(known: BenchmarkSet, found: Found) -> dict[str, object]:
    about = {"name": known.name, "color": known.color, "clean": known.clean, "images": len(known.items)}
    where = {"state": found.state, "path": str(found.place) if found.place else None}
    return {**about, "bytes": known.bytes, **where, "source": known.source, "licence": known.licence}
