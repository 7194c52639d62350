"""The paper's tables with our rows beside theirs, as Markdown, from measured manifest records alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mdrn_cli.bench import PROTOCOL
from mdrn_cli.datasets import published_tables
from mdrn_cli.manifest import DISTILLATIONS, FAMILIES, WHITE, Record

TITLES = {
    "table1_gray": "Table 1: gray images",
    "table2_color": "Table 2: color images",
    "table3_gray_hads": "Table 3: gray images, the small network and HADS",
    "table4_color_hads": "Table 4: color images, the small network and HADS",
    "table5_gray_hmds": "Table 5: gray images, HMDS",
    "table5_color_hmds": "Table 5: color images, HMDS",
}
HEAD = f"""# Results

PSNR in dB. Rows in bold are this project's bundled checkpoints as measured when they were released, in bfloat16 where
the processor has it (docs/speed.md has float32 beside it); the others are the paper's. This file is made from
`weights_manifest.json` by `mdrn weights results`; it is not edited by hand.

Of the sets, one image was trained on: 04 of Set12 is a part of a photograph of BSDS500 (mdrn_cli/weights/README.md).

Protocol: {PROTOCOL}.
"""


def results_markdown(records: Sequence[Record]) -> str:
    """The document.

    Args:
        records: of a manifest.
    """
    parts = [HEAD]
    for key, table in published_tables().items():
        parts.append(f"## {TITLES[key]}\n\n{_table(key, table, records)}\n")
    parts.append(f"## Every checkpoint\n\n{_checkpoints(records)}\n")
    return "\n".join(parts)


def _table(key: str, table: dict[str, Any], records: Sequence[Record]) -> str:
    first: dict[str, dict[str, Any]] = next(iter(table.values()))
    columns = [(dataset, sigma) for dataset, sigmas in first.items() for sigma in sigmas]
    color = "gray" if "gray" in key else "color"
    rows = [
        [method, *(_number(sets.get(dataset, {}).get(sigma)) for dataset, sigma in columns)]
        for method, sets in table.items()
    ]
    records = [record for record in records if record.noise == WHITE]
    for family in FAMILIES:
        for distilled in DISTILLATIONS:
            ours = {
                r.sigma: r.metrics for r in records if (r.family, r.color, r.distilled) == (family, color, distilled)
            }
            cells = [_number(ours.get(float(sigma), {}).get(dataset)) for dataset, sigma in columns]
            if any(cell != "-" for cell in cells):
                label = family if distilled is None else f"{family} {distilled}"
                rows.append([f"**{label}**", *(f"**{cell}**" if cell != "-" else cell for cell in cells)])
    return markdown_table(["method", *(f"{dataset} {sigma}" for dataset, sigma in columns)], rows)


def _checkpoints(records: Sequence[Record]) -> str:
    rows = []
    for record in records:
        training = record.training
        measured = ", ".join(f"{name} {value:.2f}" for name, value in record.metrics.items())
        if record.noise != WHITE:
            measured += " (white noise, which it is not for)"
        length = f"{training.get('steps', '-')} steps, {_duration(float(training.get('elapsed') or 0))}"
        rows.append([record.name, f"{record.parameters:,}", measured, length, str(training.get("hardware", "-"))])
    return markdown_table(["checkpoint", "parameters", "measured", "last training run", "hardware"], rows)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
