"""What `mdrn bench` puts out: tables, JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from mdrn_cli.cli.console import echo, print_table, printable, stdout

if TYPE_CHECKING:
    from mdrn_cli.bench import Result

SCHEMA = "mdrn.bench/1"
LABEL_WIDTH, BORDER = 32, 3
"""Characters that the widest label of a table takes, and what parts one noise level from the next."""
SHOWN_METHODS = (
    *("BM3D", "CBM3D", "DnCNN", "FFDNet"),
    *("MDRN (2B)", "MDRN (2B) + HADS", "MDRN", "MDRN + HMDS (25)", "MDRN + HMDS (50)", "MDRN+"),
)


def show(results: Sequence[Result], as_json: bool, as_csv: bool, as_markdown: bool) -> None:
    """Put results out as they are asked for: as a table by default."""
    if as_json:
        echo(json.dumps(to_json(results)))
    elif as_csv:
        text = io.StringIO(newline="")
        header, *rows = _cells(results, decimals=4, none="", mark="")
        about = [(each.dataset, each.color, "true" if each.ensemble else "false") for each in results]
        rows = [["set", "color", "ensemble", *header], *([*told, *row] for told, row in zip(about, rows, strict=True))]
        csv.writer(text, lineterminator="\n").writerows(rows)
        echo(text.getvalue(), newline=False)
    elif as_markdown:
        from mdrn_cli.results import markdown_table

        header, *rows = _cells(results)
        echo(markdown_table(header, rows))
    else:
        for shown in _that_fit(results):
            print_table(_table(shown))


def to_json(results: Sequence[Result]) -> dict[str, Any]:
    """The object of `--json` (docs/json.md)."""
    from mdrn_cli.bench import PROTOCOL

    return {
        "schema": SCHEMA,
        "dataset": results[0].dataset,
        "color": results[0].color,
        "clean": results[0].clean,
        "verified": results[0].verified,
        "protocol": PROTOCOL if results[0].clean else None,
        "results": [
            {
                "sigma": result.sigma,
                "model": result.model,
                "trained_sigma": result.trained_sigma,
                "sha256": result.sha256,
                "device": result.device,
                "precision": result.precision,
                "ensemble": result.ensemble,
                "psnr": _finite(result.mean("psnr")),
                "ssim": _finite(result.mean("ssim")),
                "noisy_psnr": _finite(result.mean("noisy_psnr")),
                "noise_before": _finite(result.mean("noise_before")),
                "noise_after": _finite(result.mean("noise_after")),
                "seconds": round(result.seconds, 3),
                "megapixels_per_second": round(result.megapixels_per_second, 4),
                "published": result.published,
                "reference": result.reference if result.gap is not None else None,
                "images": [
                    {
                        "file": row.file,
                        "psnr": _finite(row.psnr),
                        "ssim": _finite(row.ssim),
                        "noisy_psnr": _finite(row.noisy_psnr),
                        "noise_before": _finite(row.noise_before),
                        "noise_after": _finite(row.noise_after),
                        "seconds": round(row.seconds, 3),
                    }
                    for row in result.images
                ],
            }
            for result in results
        ],
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return round(value, 4) if math.isfinite(value) else None


def _cells(results: Sequence[Result], decimals: int = 2, none: str = "-", mark: str = "+") -> list[list[str]]:
    """The table as text: header, then a row for each result; levels, dB and speed of some decimals, as measured, what
    stands where there is no value, as SSIM of images that are too small, and what follows a network's name where its
    results for eight orientations were averaged."""
    methods = [name for name in SHOWN_METHODS if any(name in result.published for result in results)]
    measured = ["PSNR", "SSIM", "noisy"] if results[0].clean else ["noise before", "noise after"]
    references = _references(results)
    gaps_to = (f"ours - {reference}" for reference in references)
    header = ["sigma", "model", *measured, "MP/s", *methods, *gaps_to, "trained at"]
    rows = []
    for result in results:
        row = [f"{result.sigma:g}", result.model + (mark if result.ensemble else "")]
        if result.clean:
            columns = {"psnr": decimals, "ssim": 4, "noisy_psnr": decimals}
        else:
            columns = dict.fromkeys(("noise_before", "noise_after"), decimals)
        means = ((result.mean(name), digits) for name, digits in columns.items())
        row += [f"{mean:.{digits}f}" if math.isfinite(mean) else none for mean, digits in means]
        row.append(f"{result.megapixels_per_second:.{decimals}f}")
        row += [f"{result.published[name]:.2f}" if name in result.published else none for name in methods]
        gaps = (_gap(result, reference) for reference in references)
        row += [none if gap is None else f"{gap:+.{decimals}f}" for gap in gaps]
        row.append(none if result.trained_sigma is None else f"{result.trained_sigma:g}")
        rows.append(row)
    return [header, *rows]


def _references(results: Sequence[Result]) -> list[str]:
    """The published methods that results are held against: that of one noise level may not be that of another."""
    return list(dict.fromkeys(result.reference for result in results if result.reference and result.gap is not None))


def _gap(result: Result, reference: str) -> float | None:
    """What a result is above a published method, if it is held against that."""
    return result.gap if result.reference == reference else None


def _that_fit(results: Sequence[Result]) -> Iterator[Sequence[Result]]:
    """As many noise levels at a time as the terminal has room for side by side."""
    widest = max(len(_heading(result)) for result in results)
    most = max(1, (stdout.width - LABEL_WIDTH) // (widest + BORDER))
    for first in range(0, len(results), most):
        yield results[first : first + most]


def _heading(result: Result) -> str:
    return f"sigma {result.sigma:g}"


def _label(result: Result) -> str:
    from mdrn_cli.denoisers import labelled

    return labelled(result.model, result.trained_sigma, result.sigma) if result.trained_sigma else result.model


def _table(results: Sequence[Result]) -> Table:
    """For a terminal: methods down, noise levels across."""
    first = results[0]
    what = "PSNR in dB" if first.clean else "estimated noise level, 0-255 scale"
    title = f"{first.dataset}, {first.color}, {len(first.images)} images, {what}"
    table = Table(title=Text(printable(title)))
    table.add_column("")
    for result in results:
        table.add_column(_heading(result), justify="right")

    def add(label: str, values: Sequence[float | None], form: str = ".2f", style: str = "") -> None:
        cells = ("-" if value is None or math.isnan(value) else format(value, form) for value in values)
        table.add_row(label, *cells, style=style)

    if not first.clean:
        add("before", [result.mean("noise_before") for result in results])
        add("after", [result.mean("noise_after") for result in results], style="bold")
    else:
        add("noisy", [result.mean("noisy_psnr") for result in results])
        for method in SHOWN_METHODS:
            if any(method in result.published for result in results):
                add(f"{method} (published)", [result.published.get(method) for result in results])
        add("ours", [result.mean("psnr") for result in results], style="bold")
        for reference in _references(results):
            add(f"ours - {reference}", [_gap(result, reference) for result in results], "+.2f")
        add("SSIM", [result.mean("ssim") for result in results], ".4f")
    add("megapixels/s", [result.megapixels_per_second for result in results])
    models = ", ".join(_label(result) + (" x8" if result.ensemble else "") for result in results)
    table.caption = Text(printable(models))
    return table
