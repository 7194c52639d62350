"""The networks of a run, and which of them serves a noise level."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.errors import WeightsError
from mdrn_cli.hardware import threads_asked_for
from mdrn_cli.manifest import CAMERA, RESERVED, WHITE, Record, choose, for_another_color, serving
from mdrn_cli.paths import is_file, sha256_of
from mdrn_cli.stretch import Function, stretched
from mdrn_cli.weights import all_records, explicit_path, locate, named, recorded

if TYPE_CHECKING:
    from mdrn_cli.checkpoint import Checkpoint
    from mdrn_cli.engine import Engine


@dataclass(frozen=True)
class Denoiser:
    """A network that serves a noise level, maybe not the one it was trained at; callable on (C, H, W) arrays.

    Attributes:
        engine: the network.
        trained: noise level it was trained at, 0-255 scale.
        sigma: noise level it serves.
        name: of the checkpoint, or its path.
        sha256: of its file.
        distilled: "hads" or "hmds", where its record or its run says so.
        noise: that it was trained on, WHITE or CAMERA of manifest.py; with CAMERA, all levels, stretched to one.
    """

    engine: Engine
    trained: float
    sigma: float
    name: str
    sha256: str
    distilled: str | None = None
    noise: str = WHITE

    @property
    def label(self) -> str:
        """Its name, with a note where it serves another level than it was trained at."""
        return labelled(self.name, self.trained, self.sigma)

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Denoise one image or tile, float32 (C, H, W) in [0, 1]; not clipped. A network for color is shown a gray one
        as three equal channels, and the mean of its results is taken."""
        function = stretched(self.engine, self.trained, self.sigma, wholly=self.noise == CAMERA)
        channels = self.engine.config.channels
        if len(image) == channels:
            return function(image)
        restored: NDArray[np.float32] = function(np.repeat(image, channels, axis=0)).mean(axis=0, keepdims=True)
        return restored


def mean_of(denoisers: Sequence[Denoiser]) -> Function:
    """A function that averages the results of denoisers for an image."""
    if len(denoisers) == 1:
        return denoisers[0]

    def mean(image: NDArray[np.float32]) -> NDArray[np.float32]:
        total = denoisers[0](image)
        for other in denoisers[1:]:
            total = total + other(image)
        return total / np.float32(len(denoisers))

    return mean


def labelled(name: str, trained: float, sigma: float) -> str:
    """A network's name, with a note where it serves another noise level than it was trained at."""
    return name if trained == sigma else f"{name} (trained at {trained:g}, stretched)"


class Denoisers:
    """The networks of one run, each loaded once.

    Args:
        model: "auto", a family, the name of a checkpoint, or a path to one or to a run folder.
        device, precision: see Engine.
        manifests: paths or URLs of manifests beyond the project's own.

    Attributes:
        seconds: spent on loading so far.

    Raises:
        UsageError: `MDRN_THREADS` makes no sense.
        WeightsError: there is no file or checkpoint of the model's name, or a manifest cannot be had.
    """

    def __init__(
        self, model: str = "auto", device: str = "auto", precision: str = "auto", manifests: Sequence[str] = ()
    ) -> None:
        self.model, self.device, self.precision, self.manifests = model, device, precision, manifests
        self.seconds = 0.0
        threads_asked_for()
        self._loaded: dict[str, tuple[Engine, str, float, str | None, str]] = {}
        self._records: tuple[Record, ...] = ()
        self._path = explicit_path(model, manifests)
        if self._path:
            if not is_file(self._path):
                raise WeightsError(f"no checkpoint file {self._path}")
        else:
            self._records = all_records(manifests)
            if model not in RESERVED:
                named(self._records, model, RESERVED)

    def are_for(self, noise: str, color: str) -> bool:
        """Whether a network trained on such noise can be chosen from; False where one is asked for by name or path."""
        return bool(serving(self._records, self.model, self._learned(color, noise), noise))

    def find(self, color: str, sigma: float, noise: str = WHITE) -> Denoiser:
        """The network for a color mode and a noise level, trained on the kind of noise unless one is asked for by name
        or path. For CAMERA noise in gray one for color is used, which has learned gray, too, if there is none for gray.

        Raises:
            WeightsError: no checkpoint serves the request, or it is corrupt.
            UsageError: the checkpoint asked for is for another color mode.
            DeviceError: no such device.
        """
        color = self._learned(color, noise)
        record = None if self._path else choose(self._records, self.model, color, sigma, noise=noise)
        name = record.name if record else self.model
        if name not in self._loaded:  # a file is checked once a run, not once a picture
            path = locate(record) if record else self._path
            assert path
            sha256 = record.sha256 if record else sha256_of(path)
            known = record or recorded(sha256)
            engine, checkpoint = self._load(path)
            distilled, learned = (known.distilled, known.noise) if known else _as_it_says(checkpoint)
            self._loaded[name] = engine, sha256, checkpoint.sigma, distilled, learned
        engine, sha256, trained, distilled, learned = self._loaded[name]
        if engine.config.color != color:
            raise for_another_color(name, engine.config.color, color)
        return Denoiser(engine, trained, sigma, name, sha256, distilled, learned)

    def _learned(self, color: str, noise: str) -> str:
        """The color mode of the networks that serve a kind of noise in pictures of mode `color`."""
        own = noise != CAMERA or serving(self._records, self.model, color, noise)
        return color if own else "color"

    def _load(self, path: Path) -> tuple[Engine, Checkpoint]:
        began = time.perf_counter()
        # torch takes seconds to import, for which messages about a mistake should not have to wait.
        with _nothing_collected():
            from mdrn_cli.checkpoint import load_checkpoint
            from mdrn_cli.engine import Engine

        checkpoint = load_checkpoint(path)
        engine = Engine(checkpoint, self.device, self.precision)
        self.seconds += time.perf_counter() - began
        return engine, checkpoint


def _as_it_says(checkpoint: Checkpoint) -> tuple[str | None, str]:
    """How a network without a record was distilled and on which noise it was trained, by its checkpoint."""
    return checkpoint.distillation.get("mode"), checkpoint.noise


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Pause the search for cyclic garbage. It is a fifth of the time that importing torch takes, and torch
    keeps nearly all of what it makes."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
