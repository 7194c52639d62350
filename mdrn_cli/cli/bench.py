"""`mdrn bench`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdrn_cli.cli.benchresults import show
from mdrn_cli.cli.console import (
    bytes_bar,
    parse_tile,
    print_warning,
    printable,
    progress_bar,
)
from mdrn_cli.cli.options import (
    Data,
    Device,
    Ensemble,
    Json,
    Manifests,
    Model,
    Offline,
    Precision,
    choices,
    flag,
    offered,
    options_given,
    sets,
)
from mdrn_cli.cli.speed import bench_speed
from mdrn_cli.errors import MdrnError, UsageError
from mdrn_cli.interrupts import INTERRUPTIONS
from mdrn_cli.paths import exists, is_folder, refuse_existing
from mdrn_cli.places import Places

if TYPE_CHECKING:
    from mdrn_cli.bench import Result
    from mdrn_cli.datasets import Dataset
    from mdrn_cli.denoisers import Denoisers

SPEED_TILE = 512
OF_SPEED = {"speed", "tile", "megapixels", "device", "as_json", "as_markdown", "_offline"}
"""Parameters that mean something to --speed."""


def bench(
    ctx: typer.Context,
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="SET_OR_FOLDER",
            help="Set12, BSD68, CBSD68, Kodak24, ... or a folder.",
            autocompletion=offered(sets),
        ),
    ] = None,
    sigma: Annotated[
        list[float] | None, typer.Option(help="Noise level, may be repeated; the paper's levels by default.")
    ] = None,
    model: Model = "auto",
    ensemble: Ensemble = False,
    data: Data = None,
    color: Annotated[
        str | None,
        typer.Option(help="gray or color; the set's own by default.", autocompletion=choices("gray", "color")),
    ] = None,
    tile: Annotated[
        str,
        typer.Option(
            metavar="auto|PIXELS",
            help="Side of a tile, a multiple of 8 from 192 up; 0: whole images; auto: whole where memory allows.",
        ),
    ] = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    save: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the restored images as PNG.")] = None,
    overwrite: Annotated[bool, flag("--overwrite", help="With --save: replace files that exist.")] = False,
    manifest: Manifests = None,
    _offline: Offline = False,
    as_json: Json = False,
    as_csv: Annotated[bool, flag("--csv", help="Print CSV, a row per noise level.")] = False,
    as_markdown: Annotated[bool, flag("--markdown", help="Print a Markdown table.")] = False,
    speed: Annotated[bool, flag("--speed", help="Measure speed and memory instead, beside other denoisers.")] = False,
    megapixels: Annotated[
        float, typer.Option(min=0, help="With --speed: size of the file that is restored; 0: none.")
    ] = 12.0,
) -> None:
    """Measure PSNR and SSIM on clean images with synthetic noise, beside the published figures.

    [bold]Examples[/]

      MDRN_DATA=sets mdrn bench Set12

      mdrn bench my/photos --color color --sigma 50 --json

      mdrn bench --speed
    """
    from mdrn_cli.denoisers import Denoisers
    from mdrn_cli.tilewise import check_tile

    if as_json + as_csv + as_markdown > 1:
        raise UsageError("--json, --csv and --markdown exclude one another")
    side = parse_tile(tile)
    if speed:
        _refuse_idle(ctx)
        bench_speed(SPEED_TILE if side is None else side, megapixels, device, as_json, as_markdown)
        return
    if side is not None:
        check_tile(side)
    if "megapixels" in options_given(ctx):
        raise UsageError("--megapixels goes with --speed", "mdrn bench --speed --megapixels 24")
    if "overwrite" in options_given(ctx, environment=False) and not save:
        raise UsageError("--overwrite goes with --save", "mdrn bench Set12 --save restored --overwrite")
    if dataset is None:
        raise UsageError("which images?", "mdrn bench Set12, mdrn bench my/photos, or mdrn bench --speed")
    color = color and color.lower()
    if color not in (None, "gray", "color"):
        raise UsageError(f"color must be gray or color, not {color!r}")
    denoisers = Denoisers(model, device, precision, tuple(manifest or ()))
    opened = _open(dataset, data, color)
    levels = _levels(opened, sigma)
    targets = _targets(opened, levels, save, overwrite) if save else {}
    results: list[Result] = []
    try:
        _measure(opened, levels, denoisers, ensemble, side, targets, results)
    except (*INTERRUPTIONS, MdrnError):
        if results:  # a run that cannot go on has measured something, too
            show(results, as_json, as_csv, as_markdown)
            print_warning(f"{len(results)} of {len(levels)} noise levels were measured")
        raise
    show(results, as_json, as_csv, as_markdown)


def _refuse_idle(ctx: typer.Context) -> None:
    """Refuse what would do nothing with --speed; settings of the environment are for all commands."""
    idle = options_given(ctx, environment=False) - OF_SPEED
    given = [parameter for parameter in ctx.command.params if parameter.name in idle]
    names = ["a set or folder" if each.param_type_name == "argument" else each.opts[0] for each in given]
    if names:
        raise UsageError(f"--speed cannot be combined with {', '.join(names)}", "mdrn bench --speed --json")


def _open(name: str, data: Path | None, color: str | None) -> Dataset:
    from mdrn_cli.datasets import open_dataset
    from mdrn_cli.image import is_gray

    with bytes_bar() as bar:
        task = bar.add_task(printable(name), total=None)
        opened = open_dataset(name, data, color, lambda count: bar.advance(task, count))
    if opened.verified is False:
        print_warning(f"{opened.folder} is not byte for byte the public {opened.name}: no published figures are shown")
    if opened.color == "color" and (gray := sum(map(is_gray, opened.files))):
        told = f"{gray} of {len(opened.files)} images are gray, and measured in color"
        print_warning(f"{told}: each channel gets noise of its own, and PSNR is higher")
    return opened


def _levels(opened: Dataset, sigmas: Sequence[float] | None) -> Sequence[float]:
    """Noise levels to measure at: those asked for, or the paper's."""
    from mdrn_cli.datasets import PAPER_SIGMAS
    from mdrn_cli.levels import check_sigma

    for value in sigmas or ():
        check_sigma(value)
    if not sigmas and not opened.clean:
        raise UsageError(f"the images of {opened.name} carry real noise of unknown level", "give --sigma")
    return list(dict.fromkeys(sigmas or PAPER_SIGMAS[opened.color]))


def _targets(opened: Dataset, levels: Sequence[float], folder: Path, overwrite: bool) -> dict[tuple[float, Path], Path]:
    """Where the restored version of each file goes, by noise level; the folder is made. Whatever speaks against it is
    said before any work."""
    from mdrn_cli.files import telling_write_errors

    if opened.folder and Places().within(folder, opened.folder):
        raise UsageError(f"results in {folder} would be measured with {opened.folder} next time", "save them elsewhere")
    targets = {
        (level, file): folder / f"sigma-{level:g}" / opened.path_of(file).with_suffix(".png")
        for level in levels
        for file in opened.files
    }
    target, count = Counter(targets.values()).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{count} results would be written to {target}", "give the images different names")
    if exists(folder) and not is_folder(folder):
        raise UsageError(f"{folder} is no folder", "give another name")
    for target in targets.values():
        refuse_existing(target, overwrite)
    with telling_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return targets


def _measure(
    opened: Dataset,
    levels: Sequence[float],
    denoisers: Denoisers,
    ensemble: bool,
    tile: int | None,
    targets: Mapping[tuple[float, Path], Path],
    results: list[Result],
) -> None:
    """Measure at each noise level, each result kept as it is finished."""
    from mdrn_cli.bench import check_images, measure_network

    check_images(opened)
    with progress_bar("images") as bar:
        for value in levels:
            denoiser = denoisers.find(opened.color, value)
            task = bar.add_task(printable(f"{opened.name} sigma {value:g}"), total=len(opened.files))

            def on_image(file: Path, restored: Any, task: Any = task, value: float = value) -> None:
                bar.advance(task)
                if targets:
                    _save(targets[value, file], restored, file, opened.color)

            result = measure_network(opened, value, denoiser, ensemble, tile, on_image)
            results.append(result)
            if result.exact:
                told = f"{result.exact} of {len(result.images)} images are restored exactly at sigma {value:g}"
                print_warning(f"{told}: of these there is no PSNR, and they do not count in its mean")


def _save(path: Path, restored: Any, source: Path, color: str) -> None:
    """Write a restored image, uint8 (H, W, C), with the metadata of its source: programs turn both upright alike."""
    from mdrn_cli.encoding import encode_picture
    from mdrn_cli.files import telling_write_errors, write_atomically
    from mdrn_cli.image import read_picture
    from mdrn_cli.picture import picture_of

    metadata = read_picture(source).to_color(color).metadata
    with telling_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, encode_picture(picture_of(restored, has_alpha=False, metadata=metadata), "PNG")[0])
