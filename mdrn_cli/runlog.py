"""What a run tells of itself as it goes: `metrics.csv` always; TensorBoard events and a picture of the curves where
the libraries for them are installed (the extra `plots`)."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdrn_cli.cache import FONTS, library_folder
from mdrn_cli.errors import MdrnWarning, told_by
from mdrn_cli.files import write_atomically
from mdrn_cli.runfolder import CURVES_FILE, EVENTS_FOLDER, METRICS_FILE


@dataclass(frozen=True)
class Progress:
    """A moment of a run, for display.

    Attributes:
        iteration: steps so far.
        fraction: share of the run done, 0 to 1.
        elapsed: seconds of training so far.
        remaining: seconds to go, estimated.
        loss: mean over the steps since the last report.
        rate: iterations a second of this process.
        learning_rate: of AdamW or Adam, at the last step.
        psnr: validation PSNR in dB at this moment, None between validations.
        best_psnr: highest so far, None before the first.
        skipped: non-finite steps so far.
        reconstruction: as `loss`, of the reconstruction loss alone; None where that is the whole loss.
    """

    iteration: int
    fraction: float
    elapsed: float
    remaining: float
    loss: float
    rate: float
    learning_rate: float
    psnr: float | None
    best_psnr: float | None
    skipped: int
    reconstruction: float | None = None


Report = Callable[[Progress], None]

# Of a Progress, what `metrics.csv` keeps, and how it is written.
_COLUMNS = {
    "iteration": "d",
    "elapsed": ".1f",
    "loss": ".6f",
    "reconstruction": ".6f",
    "learning_rate": ".3e",
    "psnr": ".4f",
    "skipped": "d",
}
_EVENT_TAGS = {
    "loss": "loss",
    "reconstruction": "reconstruction loss",
    "learning_rate": "learning rate",
    "psnr": "validation PSNR (dB)",
}
_CURVES = (("loss", "reconstruction"), ("psnr",))


class RunLog:
    """The log of one run.

    Args:
        folder: of the run.
        resumed_at: iteration it goes on from.
    """

    def __init__(self, folder: Path, resumed_at: int) -> None:
        self.folder = folder
        self._metrics = MetricsFile(folder / METRICS_FILE, tuple(_COLUMNS), resumed_at)
        self._events: Any = None
        self._drawn = False
        self._complete = True  # as far as plots go
        _keep_fonts_in_cache()  # TensorBoard, too, may bring matplotlib
        with self._plotting():
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(folder / EVENTS_FOLDER), purge_step=resumed_at + 1 if resumed_at else None)

    def append(self, progress: Progress) -> None:
        """Add a row; what is not known at a moment is left empty."""
        values = {column: getattr(progress, column) for column in _COLUMNS}
        row = {column: "" if value is None else format(value, _COLUMNS[column]) for column, value in values.items()}
        self._metrics.append(row)
        self._drawn = False
        with self._plotting():
            for column, tag in _EVENT_TAGS.items() if self._events else ():
                if row[column]:
                    self._events.add_scalar(tag, float(row[column]), progress.iteration)
        if progress.psnr is not None:
            self._draw()

    def close(self) -> None:
        """Write what is held back."""
        self._draw()
        with self._plotting():
            if self._events:
                self._events.close()

    def _draw(self) -> None:
        if self._drawn:
            return
        self._drawn = True
        with self._plotting():
            draw_curves(self.folder / METRICS_FILE, self.folder / CURVES_FILE)

    @contextmanager
    def _plotting(self) -> Iterator[None]:
        """Where the libraries are installed badly (protobuf), matplotlib has nowhere to write to, or plots fail
        otherwise, the run goes on without, and says so once: hours of training are worth more. Where they are not
        installed, in silence."""
        try:
            yield
        except ModuleNotFoundError:
            pass
        except Exception as error:
            if self._complete:
                warnings.warn(f"plots of this run are not complete: {told_by(error)}", MdrnWarning, stacklevel=3)
            self._complete = False


def draw_curves(metrics: Path, output: Path) -> None:
    """Loss and validation PSNR over iterations, from a `metrics.csv` to a PNG. Needs matplotlib."""
    _keep_fonts_in_cache()
    from matplotlib.figure import Figure

    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    for axis, columns, label in zip(axes, _CURVES, ("training loss", "validation PSNR (dB)"), strict=True):
        for column in columns:
            points = [(int(row["iteration"]), float(row[column])) for row in rows if row.get(column)]
            if points:
                axis.plot(*zip(*points, strict=True), marker="." if column == "psnr" else "", label=column)
        if len(axis.lines) > 1:
            axis.legend()
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("iteration")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    write_atomically(output, content.getvalue())


def _keep_fonts_in_cache() -> None:
    """Have matplotlib, unless it is told otherwise, write into the cache instead of the user's own folders."""
    if not os.environ.get("MPLCONFIGDIR"):
        os.environ["MPLCONFIGDIR"] = str(library_folder(FONTS))


class MetricsFile:
    """`metrics.csv`: one row at each report, rows past the resumed iteration dropped.

    Args:
        path: the file; created with its header when absent.
        columns: names; the first is the iteration.
        resumed_at: iteration the run goes on from.
    """

    def __init__(self, path: Path, columns: Sequence[str], resumed_at: int) -> None:
        self.path, self.columns = path, list(columns)
        kept = self._before(resumed_at) if path.is_file() and resumed_at else []
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(kept)
        write_atomically(path, text.getvalue().encode())

    def _before(self, resumed_at: int) -> list[dict[str, str]]:
        """The rows of the part of the run that counts, of those that can be read: the state matters, and others may
        have edited or damaged this file."""
        kept = []
        with self.path.open(newline="", encoding="utf-8", errors="replace") as file, suppress(csv.Error):
            rows = csv.DictReader(file)
            # Columns that the version did not have that began the run.
            novel = {column: "" for column in self.columns if column not in (rows.fieldnames or ())}
            for row in rows:
                known = {column: (row | novel)[column] for column in self.columns}
                if self._is_before(known, resumed_at):
                    kept.append(known)
        return kept

    def _is_before(self, row: Mapping[str, str | None], resumed_at: int) -> bool:
        """Whether a row is of the part of the run that counts, and whole, of numbers or nothing: a full disk may have
        cut the last."""
        first, *others = row.values()
        if None in others:
            return False
        try:
            for value in filter(None, others):
                float(value)
            return int(first or "") <= resumed_at
        except ValueError:
            return False

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row, on disk at once."""
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(dict(row))
