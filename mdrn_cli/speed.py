"""How fast this machine denoises: each case in a process of its own, so that peak memory is its own too."""

from __future__ import annotations

import multiprocessing
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mdrn_cli.batch import run_jobs
from mdrn_cli.checkpoint import Checkpoint
from mdrn_cli.denoisers import Denoisers
from mdrn_cli.devices import available_precisions, limit_threads, pick_device, telling_out_of_memory
from mdrn_cli.engine import Engine
from mdrn_cli.errors import MdrnError, UsageError
from mdrn_cli.interrupts import TerminatedError
from mdrn_cli.jobs import plan_jobs
from mdrn_cli.manifest import FAMILY_BLOCKS
from mdrn_cli.model import MDRN, MDRNConfig
from mdrn_cli.naming import Naming
from mdrn_cli.peers import SIGMA, peers, run_plainly
from mdrn_cli.restore import DenoiseOptions
from mdrn_cli.runtimes import runtimes
from mdrn_cli.tiling import GRID, plan_axis

T = TypeVar("T")
Pixels = NDArray[np.float32]

PLAIN = "plain float32"
"""torch as the network is written: NCHW, nothing fused. What the other engines are held against."""

SMALLEST_FILE, LARGEST_FILE = 0.001, 170
"""Megapixels; more than that are not read."""


@dataclass(frozen=True)
class Speed:
    """One case.

    Attributes:
        what: "network" (one tile), "runtime" (that network by other software), "peer" (the same tile), "start" (a fresh
            process on a small file), "file" (a JPEG read, restored and written) or "tiles" (the network alone on the
            tiles of that file).
        name: a family or a peer.
        engine: how it is computed.
        width, height: of the image, in pixels.
        first: seconds of the first call, which prepares.
        seconds: of the fastest later one; of the only one for a file.
        memory: peak resident memory of the process in bytes; 0 where the system does not tell.
    """

    what: str
    name: str
    engine: str
    width: int
    height: int
    first: float
    seconds: float
    memory: int

    @property
    def megapixels_per_second(self) -> float:
        """Throughput."""
        return self.width * self.height / 1e6 / self.seconds


def machine(device: str = "auto") -> dict[str, Any]:
    """Where the figures were measured."""
    limit_threads()
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": str(pick_device(device)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


def measure_speed(size: int, megapixels: float, device: str = "auto") -> Iterator[Speed]:
    """Measure every engine, every runtime and peer that is installed, and a file from reading to writing.

    What is asked for is checked before the first case.

    Args:
        size: side of the tile in pixels, a multiple of 8.
        megapixels: size of the JPEG file; 0 leaves it out.
        device: see Engine.

    Yields:
        A case when it is done.

    Raises:
        UsageError: no such tile or file can be made.
        DeviceError: no such device.
        MdrnError: a case failed.
    """
    if size < GRID or size % GRID:
        raise UsageError(f"the side of the tile must be a multiple of {GRID}, not {size}")
    if megapixels and not SMALLEST_FILE <= megapixels <= LARGEST_FILE:
        raise UsageError(f"megapixels must be 0 or from {SMALLEST_FILE} to {LARGEST_FILE}, not {megapixels:g}")
    for family, blocks in FAMILY_BLOCKS.items():
        for engine in (PLAIN, *available_precisions(pick_device(device))):
            yield _alone(_network_case, family, blocks, engine, size, device)
        for name in runtimes() if pick_device(device).type == "cpu" else ():
            yield _alone(_runtime_case, family, blocks, name, size)
    for name in peers():
        yield _alone(_peer_case, name, size, device)
    yield _alone(_start_case, device)
    if megapixels:
        yield from _alone(_file_case, megapixels, device)


def _alone(case: Callable[..., T], *arguments: Any) -> T:
    """Run a case in a fresh process.

    Raises:
        MdrnError: the case failed, of the kind it failed with; or its process ended without an answer.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(theirs, case, arguments))
    process.start()
    theirs.close()
    try:
        answer: T | MdrnError = ours.recv()
    except EOFError:
        process.join()
        ended = f"{_label(case, arguments)} failed: its process ended with code {process.exitcode}"
        raise MdrnError(ended, "perhaps memory ran out: use a smaller --tile") from None
    except TerminatedError:  # of which the process has heard nothing, while Ctrl-C comes to both
        process.terminate()
        raise
    finally:
        process.join()
    if isinstance(answer, MdrnError):
        raise answer
    return answer


def _report(connection: Any, case: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """Send what a case gives, or as what it failed."""
    label = _label(case, arguments)
    try:
        with telling_out_of_memory(f"{label} ran out of memory", "use a smaller --tile"):
            answer = case(*arguments)
    except MdrnError as error:
        answer = error
    except Exception as error:
        answer = MdrnError(f"{label} failed ({type(error).__name__}: {error})")
    except KeyboardInterrupt:  # which the process that waits has met, too
        return
    connection.send(answer)


def _label(case: Callable[..., object], arguments: tuple[Any, ...]) -> str:
    what = case.__name__.strip("_").removesuffix("_case")
    return f"measuring {what} {' '.join(map(str, arguments))}".strip()


def _network_case(family: str, blocks: int, engine: str, size: int, device: str) -> Speed:
    checkpoint = untrained(blocks)
    function: Callable[[Pixels], Pixels]
    if engine == PLAIN:
        limit_threads()
        place = pick_device(device)
        function = partial(run_plainly, checkpoint.build().to(place), device=str(place))
    else:
        function = Engine(checkpoint, device, engine)
    return _timed("network", family, engine, function, size, size)


def _runtime_case(family: str, blocks: int, name: str, size: int) -> Speed:
    return _timed("runtime", family, name, runtimes()[name](untrained(blocks)), size, size)


def untrained(blocks: int) -> Checkpoint:
    """A color network of random weights: as fast as a trained one."""
    config = MDRNConfig("color", blocks)
    return Checkpoint(config, SIGMA, MDRN(config).state_dict())


def _peer_case(name: str, size: int, device: str) -> Speed:
    limit_threads()
    return _timed("peer", name, "as published", peers(str(pick_device(device)))[name](), size, size)


def _timed(
    what: str, name: str, engine: str, function: Callable[[Pixels], Pixels], height: int, width: int, repeats: int = 3
) -> Speed:
    """A function's first call and the fastest of `repeats` more."""
    image = np.random.default_rng(0).random((3, height, width), np.float32)
    times = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        function(image)
        times.append(time.perf_counter() - began)
    return Speed(what, name, engine, width, height, times[0], min(times[1:]), _peak_memory())


def _file_case(megapixels: float, device: str) -> tuple[Speed, Speed]:
    """A JPEG read, restored and written, the weights loaded too; and the network alone on the same tiles."""
    options = DenoiseOptions(sigma=SIGMA, model="mdrn-2b", device=device)
    with TemporaryDirectory() as folder:
        jobs = plan_jobs([noisy_jpeg(Path(folder), megapixels)], Naming())
        began = time.perf_counter()
        (outcome,) = run_jobs(jobs, options)
        seconds = time.perf_counter() - began
    if outcome.error:
        raise outcome.error
    facts = outcome.facts
    assert facts is not None
    done = facts.network
    assert done is not None
    whole = Speed("file", "mdrn-2b", done.precision, facts.width, facts.height, seconds, seconds, _peak_memory())
    denoiser = Denoisers("mdrn-2b", device).find("color", SIGMA)
    height, width = (plan_axis(side, done.tile, done.overlap)[0].stop for side in (facts.height, facts.width))
    tile = _timed("tiles", "mdrn-2b", done.precision, denoiser, height, width, repeats=2)
    network = replace(tile, width=facts.width, height=facts.height, seconds=tile.seconds * done.tiles)
    return whole, network


def noisy_jpeg(folder: Path, megapixels: float) -> Path:
    """A color file of some size (4:3), all noise about a gradient."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    height = round(width * 3 / 4)
    noise = np.random.default_rng(0).standard_normal((height, width, 3), np.float32)
    ramp = np.linspace(60, 200, width, dtype=np.float32)[:, None]
    file = folder / "photo.jpg"
    Image.fromarray((ramp + SIGMA * noise).clip(0, 255).astype(np.uint8)).save(file, quality=95, subsampling=0)
    return file


def _start_case(device: str) -> Speed:
    """A fresh process that denoises 512x512 pixels."""
    with TemporaryDirectory() as folder:
        file = noisy_jpeg(Path(folder), 0.512**2)
        command = [sys.executable, "-m", "mdrn_cli", "denoise", str(file), "--sigma", "25", "--model", "mdrn-2b"]
        times = []
        for _ in range(3):
            began = time.perf_counter()
            done = subprocess.run([*command, "--overwrite", "--device", device], capture_output=True, text=True)
            if done.returncode:
                raise MdrnError(f"a fresh process failed: {done.stderr.strip()}", exit_code=max(done.returncode, 1))
            times.append(time.perf_counter() - began)
        with Image.open(file) as image:
            width, height = image.size
    return Speed("start", "mdrn-2b", "as it chooses", width, height, times[0], min(times[1:]), _peak_memory(True))


def _peak_memory(of_children: bool = False) -> int:
    """Of this process or of those it ran, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
