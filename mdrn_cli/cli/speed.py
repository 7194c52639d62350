"""`mdrn bench --speed`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from mdrn_cli.cli.console import echo, print_table, print_warning, stderr
from mdrn_cli.errors import MdrnError
from mdrn_cli.interrupts import INTERRUPTIONS

if TYPE_CHECKING:
    from mdrn_cli.speed import Speed

SCHEMA = "mdrn.speed/1"
HEADER = ("case", "engine", "seconds", "first", "MP/s", "times plain", "peak MB")


def bench_speed(size: int, megapixels: float, device: str, as_json: bool, as_markdown: bool) -> None:
    """Measure and print."""
    from mdrn_cli.speed import machine, measure_speed

    done = []
    try:
        with stderr.status("measuring") as status:
            for speed in measure_speed(size, megapixels, device):
                done.append(speed)
                status.update(f"{speed.name}, {speed.engine}: {speed.megapixels_per_second:.3g} megapixels a second")
    except (*INTERRUPTIONS, MdrnError):
        if done:
            _show(machine(device), done, as_json, as_markdown)
            print_warning("not all cases were measured")
        raise
    _show(machine(device), done, as_json, as_markdown)


def _show(about: dict[str, Any], done: Sequence[Speed], as_json: bool, as_markdown: bool) -> None:
    if as_json:
        echo(json.dumps(to_json(about, done)))
    elif as_markdown:
        echo(to_markdown(about, done))
    else:
        table = Table(*HEADER[:2], title=", ".join(f"{key} {value}" for key, value in about.items()))
        for column in HEADER[2:]:
            table.add_column(column, justify="right")
        for row in cells(done):
            table.add_row(*row)
        print_table(table)


def to_json(about: dict[str, Any], speeds: Sequence[Speed]) -> dict[str, Any]:
    """The object of `--json`."""
    rows = [
        asdict(speed)
        | {"megapixels_per_second": round(speed.megapixels_per_second, 4), "times_plain": times_plain(speed, speeds)}
        for speed in speeds
    ]
    return {"schema": SCHEMA, "machine": about, "results": rows}


def times_plain(speed: Speed, speeds: Sequence[Speed]) -> float | None:
    """How many times as fast as the same network in plain float32; of a peer, as our smaller network there."""
    from mdrn_cli.manifest import FAMILIES
    from mdrn_cli.speed import PLAIN

    name = speed.name if speed.name in FAMILIES else list(FAMILIES)[-1]
    plain = [other.seconds for other in speeds if (other.what, other.name, other.engine) == ("network", name, PLAIN)]
    return round(plain[0] / speed.seconds, 3) if plain and speed.what in ("network", "runtime", "peer") else None


def cells(speeds: Sequence[Speed]) -> list[list[str]]:
    """The table as text, a row for each case."""
    rows = []
    for speed in speeds:
        ratio = times_plain(speed, speeds)
        rows.append(
            [
                f"{speed.name}, {CASES[speed.what]} {speed.width}x{speed.height}",
                speed.engine,
                f"{speed.seconds:.3g}",
                f"{speed.first:.3g}",
                f"{speed.megapixels_per_second:.3g}",
                f"{ratio:.2f}" if ratio else "-",
                f"{speed.memory / 1e6:.0f}",
            ]
        )
    return rows


CASES = {
    "network": "one tile",
    "runtime": "one tile",
    "peer": "one tile",
    "start": "a fresh process on",
    "file": "a JPEG file of",
    "tiles": "the network alone on",
}


def to_markdown(about: dict[str, Any], speeds: Sequence[Speed]) -> str:
    """What was measured on one machine, in Markdown: the machine, the table and what is compared in words."""
    from mdrn_cli.results import markdown_table

    machine = "\n".join(f"- {key}: {value}" for key, value in about.items())
    return "\n".join([machine, "", markdown_table(HEADER, cells(speeds)), "", *_ratios(speeds)])


def _ratios(speeds: Sequence[Speed]) -> list[str]:
    """What is compared, in words."""
    best: dict[str, Speed] = {}
    for speed in speeds:
        if speed.what == "network" and (speed.name not in best or speed.seconds < best[speed.name].seconds):
            best[speed.name] = speed
    ratios = {name: times_plain(speed, speeds) for name, speed in best.items()}
    lines = [
        f"- {name}: {ratio:.1f} times as fast as in plain float32 ({best[name].engine})."
        for name, ratio in ratios.items()
        if ratio
    ]
    for peer in (speed for speed in speeds if speed.what == "peer"):
        small = list(best.values())[-1]  # measured before them
        lines.append(f"- {small.name} against {peer.name}: {peer.seconds / small.seconds:.2g} times as fast.")
    by_case = {speed.what: speed for speed in speeds}
    if by_case.keys() >= {"file", "tiles"}:
        share = by_case["file"].seconds / by_case["tiles"].seconds
        lines.append(f"- A JPEG from reading to writing: {share:.2f} times the time of the network alone.")
    return lines
