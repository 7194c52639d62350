"""`mdrn weights`: the checkpoints there are, where they lie, and new ones from training runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdrn_cli.cli.console import (
    bytes_bar,
    echo,
    format_bytes,
    not_had,
    print_note,
    print_warning,
    printable,
    raise_all,
)
from mdrn_cli.cli.options import Data, Device, DryRun, Json, Manifests, Offline, checkpoints, choices, flag, offered
from mdrn_cli.errors import MdrnError, UsageError, WeightsError

if TYPE_CHECKING:
    from mdrn_cli.manifest import Record
    from mdrn_cli.weights import Status

app = typer.Typer(help="The checkpoints there are, where they lie, and new ones.", no_args_is_help=True)

SCHEMA = "mdrn.weights/1"


def _named() -> list[str]:
    from mdrn_cli.manifest import FAMILIES

    return [*FAMILIES, *checkpoints()]


Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME...", help="Checkpoints, or families of them; all by default.", autocompletion=offered(_named)
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A checkpoint.", autocompletion=offered(checkpoints))]


@app.command("list")
def list_(manifest: Manifests = None, _offline: Offline = False, as_json: Json = False) -> None:
    """List the checkpoints: what they are for, how they measured, where they lie, their licence and source."""
    from mdrn_cli.addresses import shown
    from mdrn_cli.manifest import WHITE

    statuses = _statuses(None, manifest)
    if as_json:
        echo(json.dumps({"schema": SCHEMA, "checkpoints": [_to_json(status) for status in statuses]}))
        return
    for status in statuses:
        record = status.record
        source = next(map(shown, record.urls), "this package" if status.state == "bundled" else "no known source")
        measured = ", ".join(f"{name} {value:.2f} dB" for name, value in record.metrics.items())
        if record.noise != WHITE:
            measured = f"for noise as files have it; of white noise, which it is not for: {measured}"
        about = (
            f"{record.name}: {record.color}, sigma {record.sigma:g}, {record.parameters:,} parameters, "
            f"{format_bytes(record.bytes)}, {status.state}"
        )
        echo(f"{about}\n    {printable(f'{measured}; licence {record.licence}; from {source}')}")


@app.command()
def fetch(names: Names = None, dry_run: DryRun = False, manifest: Manifests = None, _offline: Offline = False) -> None:
    """Bring checkpoints that are not here into the cache."""
    from mdrn_cli.addresses import shown
    from mdrn_cli.weights import item_of, locate

    missing = [status.record for status in _statuses(names, manifest) if status.state in ("missing", "corrupt")]
    if dry_run:
        for record in missing:
            source = next(map(shown, item_of(record).sources), "no known source")
            echo(f"{record.file}\t{record.bytes}\t{printable(source)}")
        return
    failed: list[MdrnError] = []
    with bytes_bar() as bar:
        for record in missing:
            task = bar.add_task(record.name, total=record.bytes)
            try:
                locate(record, lambda count, task=task: bar.advance(task, count))  # type: ignore[misc]
            except WeightsError as error:
                failed.append(error)
    print_note(f"{len(missing) - len(failed)} fetched{not_had(failed)}, the rest was here")
    raise_all(failed)


@app.command()
def verify(names: Names = None, manifest: Manifests = None, _offline: Offline = False, as_json: Json = False) -> None:
    """Check the content of checkpoints against the manifest; exit code 5 if one asked for is not intact. Without names,
    those of further manifests need not be here."""
    from mdrn_cli.manifest import load_manifest

    statuses = _statuses(names, manifest)
    expected = {r.name for r in load_manifest()} if not names else {status.record.name for status in statuses}
    if as_json:
        echo(json.dumps({"schema": SCHEMA, "checkpoints": [_to_json(status) for status in statuses]}))
    else:
        for status in statuses:
            echo(f"{status.record.name}\t{status.state}\t{status.record.bytes}\t{printable(str(status.path or ''))}")
    states = {status.record.name: status.state for status in statuses}
    bad = [name for name, state in states.items() if state == "corrupt" or (state == "missing" and name in expected)]
    if bad:
        raise WeightsError(f"not intact: {', '.join(bad)}", "bring them with `mdrn weights fetch` or `import`")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="safetensors file, or a folder of them.")],
    manifest: Manifests = None,
    _offline: Offline = False,
) -> None:
    """Take checkpoints brought by hand into the cache; they are recognised by content."""
    from mdrn_cli.weights import all_records, import_files

    for record in import_files(source, all_records(manifest or ())):
        echo(record.name)


@app.command()
def path(name: Name, manifest: Manifests = None, _offline: Offline = False) -> None:
    """Print the path of a checkpoint's file, fetching it if need be."""
    from mdrn_cli.weights import all_records, locate, named

    echo(printable(str(locate(named(all_records(manifest or ()), name)))))


@app.command()
def export(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE|RUN",
            help="A checkpoint, by name, file or run folder.",
            autocompletion=offered(checkpoints),
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; NAME.onnx here by default.")
    ] = None,
    kind: Annotated[str, typer.Option("--format", help="onnx.", autocompletion=choices("onnx"))] = "onnx",
    overwrite: Annotated[bool, flag("--overwrite", help="Replace a file that exists.")] = False,
    manifest: Manifests = None,
    _offline: Offline = False,
) -> None:
    """Write a checkpoint as an ONNX model of any height and width, checked against the network."""
    from mdrn_cli.checkpoint import load_checkpoint
    from mdrn_cli.files import write_atomically
    from mdrn_cli.onnxexport import check, to_onnx
    from mdrn_cli.paths import is_folder, refuse_existing, require_folder
    from mdrn_cli.pipes import PIPE
    from mdrn_cli.places import Places
    from mdrn_cli.weights import all_records, explicit_path, locate, named

    if kind != "onnx":
        raise UsageError(f"--format must be onnx, not {kind!r}")
    if output == PIPE:
        raise UsageError("the model goes to a file; stdout is for its name", "name one that ends in .onnx")
    file = explicit_path(name, manifest or ())
    record = None if file else named(all_records(manifest or ()), name)
    called = Path(name).resolve().name if is_folder(Path(name)) else Path(record.file if record else name).stem
    target = output or Path(called + ".onnx")
    refuse_existing(target, overwrite)
    require_folder(target.parent)
    source = locate(record) if record else file
    assert source
    places = Places()
    if places.of(target) == places.of(source):
        raise UsageError(f"the output would replace its own source {source}", "name another file with -o")
    checkpoint = load_checkpoint(source)
    content = to_onnx(checkpoint)
    difference = check(content, checkpoint)
    write_atomically(target, content)
    if difference is None:
        print_warning("not checked: onnxruntime is not installed")
    else:
        print_note(f"checked by ONNX Runtime: largest difference {difference:.1e} on a scale of 1")
    echo(printable(str(target)))


@app.command()
def rm(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME...", help="Checkpoints to remove, or families of them.", autocompletion=offered(_named)
        ),
    ] = None,
    everything: Annotated[bool, flag("--all", help="Remove all checkpoints of the manifests.")] = False,
    manifest: Manifests = None,
    _offline: Offline = False,
) -> None:
    """Remove checkpoints from the cache (never bundled ones) and say how much that freed; `mdrn cache clear` takes
    whatever there is."""
    from mdrn_cli.cache import Cache
    from mdrn_cli.weights import BUNDLED, item_of

    if bool(names) == everything:
        raise UsageError("give either names or --all")
    cache, records = Cache(), _records(names, manifest)
    freed = sum(cache.remove(item_of(record)) for record in records)
    staying = "; bundled checkpoints stay" if any((BUNDLED / record.file).is_file() for record in records) else ""
    print_note(f"{format_bytes(freed)} freed in {cache.root}{staying}")


@app.command()
def results() -> None:
    """Print the paper's tables with our measured rows, as Markdown: the content of docs/results.md."""
    from mdrn_cli.manifest import load_manifest
    from mdrn_cli.results import results_markdown

    echo(results_markdown(load_manifest()), newline=False)


@app.command()
def pack(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|CHECKPOINT", help="Run folder, of which last.safetensors is taken, or a checkpoint file."
        ),
    ],
    val: Annotated[Path, typer.Option(help="Photographs on which float16 weights are compared with float32.")],
    sets: Annotated[list[str], typer.Option("--set", help="Benchmark set to measure on; may be repeated.")],
    name: Annotated[
        str | None,
        typer.Option(help="What it is to be called: checked, or, in a --manifest of your own, chosen freely."),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.json",
            help="Manifest of your own to make or add to, the checkpoint beside it; the project's by default.",
        ),
    ] = None,
    data: Data = None,
    distilled: Annotated[
        str | None, typer.Option(help="hads or hmds, for a distilled network whose run does not say.")
    ] = None,
    overwrite: Annotated[bool, flag("--overwrite", help="Replace the checkpoint of that name.")] = False,
    device: Device = "auto",
    _offline: Offline = False,
) -> None:
    """Bundle a trained checkpoint as float16, measured and recorded in a manifest."""
    from mdrn_cli import release
    from mdrn_cli.addresses import is_remote, local_path, shown

    if manifest is not None and is_remote(manifest):
        raise UsageError(f"{shown(manifest)} is an address, and a manifest is made in a file", "give a path")
    own = None if manifest is None else local_path(manifest)

    def on_set(name: str) -> None:
        print_note(f"measuring {name}")

    record, checks = release.pack(source, sets, str(val), data, distilled, on_set, name, own, overwrite, device)
    figures = ", ".join(f"{place} {value:.3f} dB" for place, value in {**checks, **record.metrics}.items())
    print_note(f"{record.name}: {figures}")


@app.command()
def measure(names: Names = None, data: Data = None, device: Device = "auto", _offline: Offline = False) -> None:
    """Measure bundled checkpoints again, as the engine is now, and record that in the manifest."""
    from mdrn_cli import release

    for record in _records(names, None):
        again = release.measure_again(record, data, device)
        print_note(f"{record.name}: {record.metrics} before, {again.metrics} now")


def _records(names: list[str] | None, manifest: list[str] | None) -> list[Record]:
    """Those named, by themselves or by their family, each once; all where none is."""
    from mdrn_cli.weights import all_records, named

    records = all_records(manifest or ())
    if not names:
        return list(records)
    meant = ([r for r in records if r.family == name] or [named(records, name)] for name in names)
    return list({record.name: record for each in meant for record in each}.values())


def _statuses(names: list[str] | None, manifest: list[str] | None) -> list[Status]:
    from mdrn_cli.weights import status

    return [status(record) for record in _records(names, manifest)]


def _to_json(status: Status) -> dict[str, object]:
    return {**asdict(status.record), "state": status.state, "path": str(status.path) if status.path else None}
