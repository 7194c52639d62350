"""`mdrn data`: the benchmark sets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mdrn_cli.cli.console import bytes_bar, format_bytes, stderr
from mdrn_cli.cli.options import Data, DryRun, Json, Offline
from mdrn_cli.errors import FetchError, UsageError

if TYPE_CHECKING:
    from mdrn_cli.datasets import BenchmarkSet

app = typer.Typer(help="The benchmark sets: what they are, where they lie.", no_args_is_help=True)

SCHEMA = "mdrn.data/1"
Names = Annotated[list[str] | None, typer.Argument(metavar="SET...", help="Sets, such as Set12; all by default.")]


@app.command("list")
def list_(data: Data = None, as_json: Json = False) -> None:
    """List the sets with size, source, licence and where they are."""
    from mdrn_cli.datasets import benchmark_sets, verify_set

    rows = [(known, verify_set(known, data)) for known in benchmark_sets().values()]
    if as_json:
        typer.echo(json.dumps({"schema": SCHEMA, "sets": [_to_json(known, state) for known, state in rows]}))
        return
    for known, state in rows:
        kind = known.color if known.clean else f"{known.color}, real noise"
        typer.echo(
            f"{known.name}: {len(known.items)} images, {kind}, {format_bytes(known.bytes)}, {state}\n"
            f"    licence: {known.licence}; from {known.source}"
        )


@app.command()
def fetch(names: Names = None, dry_run: DryRun = False, data: Data = None, _offline: Offline = False) -> None:
    """Bring sets into the cache, unless they are under --data or MDRN_DATA."""
    from mdrn_cli.cache import Cache
    from mdrn_cli.datasets import fetch_set, verify_set

    wanted = [known for known in _sets(names) if verify_set(known, data) != "on disk"]
    if dry_run:
        for item in Cache().plan([item for known in wanted for item in known.items]).missing:
            typer.echo(f"{item.name}\t{item.bytes}\t{item.sources[0]}")
        return
    with bytes_bar() as bar:
        for known in wanted:
            plan = Cache().plan(known.items)
            task = bar.add_task(known.name, total=plan.missing_bytes)
            fetch_set(known, lambda count, task=task: bar.advance(task, count))  # type: ignore[misc]
    stderr.print(f"{len(wanted)} in the cache, the rest is on disk", highlight=False)


@app.command()
def verify(names: Names = None, data: Data = None, as_json: Json = False) -> None:
    """Check sets file by file; exit code 5 if one asked for is not whole."""
    from mdrn_cli.datasets import verify_set

    rows = [(known, verify_set(known, data)) for known in _sets(names)]
    if as_json:
        typer.echo(json.dumps({"schema": SCHEMA, "sets": [_to_json(known, state) for known, state in rows]}))
    else:
        for known, state in rows:
            typer.echo(f"{known.name}\t{state}\t{known.bytes}")
    bad = [known.name for known, state in rows if names and state not in ("on disk", "cached")]
    if bad:
        raise FetchError(f"not whole: {', '.join(bad)}", "bring them with `mdrn data fetch`")


def _sets(names: list[str] | None) -> list[BenchmarkSet]:
    from mdrn_cli.datasets import benchmark_sets, named_set

    found = []
    for name in names or benchmark_sets():
        known = named_set(name)
        if known is None:
            raise UsageError(f"no benchmark set {name!r}", f"sets are: {', '.join(benchmark_sets())}")
        found.append(known)
    return found


def _to_json(known: BenchmarkSet, state: str) -> dict[str, object]:
    about = {"name": known.name, "color": known.color, "clean": known.clean, "images": len(known.items)}
    return {**about, "bytes": known.bytes, "state": state, "source": known.source, "licence": known.licence}
