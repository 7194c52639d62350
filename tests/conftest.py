import importlib
import io
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

# Small networks on two cores: more threads would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The rest is about the CPU, wherever it runs; MDRN_TEST_CUDA=1 is for the tests that need a GPU.
if not os.environ.get("MDRN_TEST_CUDA"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["TRITON_INTERPRET"] = "1"  # the kernels for GPUs are then run by an interpreter

import numpy as np
import pytest
import skimage.data
import torch
from commands import Finished, start
from PIL import Image

from mdrn_cli.cache import Item
from mdrn_cli.checkpoint import Checkpoint, save_checkpoint
from mdrn_cli.datasets import BenchmarkSet
from mdrn_cli.encoding import SaveOptions, encode_picture, format_of
from mdrn_cli.model import MDRN, MDRNConfig
from mdrn_cli.noise import add_noise
from mdrn_cli.paths import sha256_of
from mdrn_cli.picture import Picture
from mdrn_cli.trainconfig import TrainConfig
from mdrn_cli.training import run_train

PROJECT = Path(__file__).parents[1]
SHARED = PROJECT.parent / "shared" / "data"


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a background job of a script: processes that the tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SPACES = "[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]"
"""All but the plain one, which Python calls not printable."""


@pytest.fixture(autouse=True)
def _own_cache_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the user's cache or leaves the machine; those of the fetcher lift the latter for loopback."""
    monkeypatch.setenv("MDRN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MDRN_OFFLINE", "1")
    for name in ("MDRN_DATA", "MDRN_WEIGHTS_URL", "MDRN_DEVICE", "MDRN_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a few steps would spend a third of their time on the plot; tests of it are marked."""
    if "curves" not in request.keywords:
        monkeypatch.setattr("mdrn_cli.runlog.draw_curves", lambda _metrics, _output: None)


@pytest.fixture(autouse=True)
def _as_many_threads_as_before() -> Iterator[None]:
    """A test that computes with more threads leaves the next ones as they were: beside other workers of pytest two
    threads on one core wait for one another, ten times as long as one takes alone."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full-size", action="store_true", help="faults, load, figures at full size (make stress)")


@pytest.fixture(scope="session")
def full_size(pytestconfig: pytest.Config) -> bool:
    """Whether faults, load and figures of weights are looked at at full size."""
    return bool(pytestconfig.getoption("--full-size"))


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A real photograph, uint8 (512, 512, 3)."""
    return skimage.data.astronaut()


@pytest.fixture(scope="session")
def gray_photo(photo: np.ndarray) -> np.ndarray:
    """The same in gray, uint8 (512, 512, 1)."""
    return np.asarray(Image.fromarray(photo).convert("L"))[:, :, None]


@pytest.fixture(scope="session")
def resized_photo(photo: np.ndarray) -> np.ndarray:
    """The same at half its size, uint8 (256, 256, 3), of which no trace of JPEG is left."""
    return np.asarray(Image.fromarray(photo).resize((256, 256), Image.Resampling.LANCZOS))


def rounded(values: np.ndarray) -> np.ndarray:
    """Intensities on the 0-255 scale as a file of 8 bits has them."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def write_picture(picture: Picture, path: Path, options: SaveOptions | None = None) -> tuple[str, ...]:
    """Write it in the format of its name; returns what there is to warn of."""
    content, warnings = encode_picture(picture, format_of(path), options)
    path.write_bytes(content)
    return warnings


def silent(_progress: object) -> None:
    """Hear the report of a run, and say nothing."""


def through_jpeg(pixels: np.ndarray, quality: int = 92, subsampling: int = 0) -> np.ndarray:
    """An image, uint8 (H, W) or (H, W, 3), stored as JPEG and read again."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(buffer))


@pytest.fixture
def photo_folder(tmp_path: Path, photo: np.ndarray) -> Path:
    """A nested folder of four small photographs."""
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for k in range(4):
        crop = photo[k * 100 : k * 100 + 96, 100:228]
        Image.fromarray(crop).save((folder / "deeper" if k % 2 else folder) / f"{k}.png")
    return folder


@pytest.fixture
def noisy_file(tmp_path: Path, photo: np.ndarray) -> Path:
    """A photograph with noise of 20, and clean.png beside it."""
    pixels = rounded(add_noise(photo, 20).transpose(1, 2, 0) * 255)
    Image.fromarray(photo).save(tmp_path / "clean.png")
    Image.fromarray(pixels).save(tmp_path / "noisy.png")
    return tmp_path / "noisy.png"


def tiny_checkpoint(color: str = "gray", sigma: float = 50.0, seed: int = 0, blocks: int = 1) -> Checkpoint:
    """An untrained network small enough for any test."""
    torch.manual_seed(seed)
    config = MDRNConfig(color, blocks, features=8)
    return Checkpoint(config, sigma, MDRN(config).state_dict(), {"iterations": 0})


def tiny_config(folder: object, **changes: object) -> TrainConfig:
    """A training run of seconds, deterministic, saving at every step."""
    base = TrainConfig(
        data=str(folder),
        blocks=1,
        features=8,
        iterations=12,
        batch_size=2,
        patch_size=32,
        precision="float32",
        save_every=0,
        device="cpu",
    )
    return replace(base, **changes)


@pytest.fixture
def finished(photo_folder: Path, tmp_path: Path) -> Path:
    """The folder of a run of one iteration."""
    run = tmp_path / "run"
    run_train(tiny_config(photo_folder, iterations=1), run, False, lambda _progress: None)
    return run


@pytest.fixture
def tiny_weights(tmp_path: Path) -> Callable[..., Path]:
    """Makes files of tiny checkpoints: `tiny_weights("color", 25.0)` -> path."""

    def make(color: str = "gray", sigma: float = 50.0, blocks: int = 1) -> Path:
        path = tmp_path / f"tiny-{color}-{sigma:g}-{blocks}.safetensors"
        save_checkpoint(path, tiny_checkpoint(color, sigma, blocks=blocks), torch.float32)
        return path

    return make


@pytest.fixture
def _unprivileged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user for whom permissions count, in a folder that can be written."""
    tmp_path.chmod(0o777)
    monkeypatch.chdir(tmp_path)  # so that the folders above need not be entered
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def tool_module(name: str, folder: str = "tools") -> ModuleType:
    """What is run by hand, and lies beside the package, as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PROJECT / folder)
        return importlib.import_module(name)


def set_of(folder: Path, name: str, color: str = "gray") -> BenchmarkSet:
    """A public set that consists of the files in a folder."""
    items = tuple(Item(path.name, sha256_of(path), path.stat().st_size, (), "CC0") for path in sorted(folder.iterdir()))
    return BenchmarkSet(name, color, True, "some/where", "CC0", items)


def record_json(**changes: object) -> dict[str, object]:
    """A valid manifest record, as JSON has it."""
    base: dict[str, object] = {
        "name": "mdrn-2b-gray-50",
        "file": "mdrn-2b-gray-50.safetensors",
        "sha256": "0" * 64,
        "bytes": 10,
        "urls": [],
        "family": "mdrn-2b",
        "color": "gray",
        "sigma": 50,
        "distilled": None,
        "config": {},
        "parameters": 1,
        "training": {},
        "metrics": {"Set12": 27.0},
        "spot_checks": {"Set12": {"01.png": 27.5}},
        "licence": "MIT",
    }
    return {**base, **changes}


def run_mdrn(
    *arguments: object,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 120,
    piped: bytes | None = None,
) -> Finished:
    """The command as a user runs it, in a process of its own, but that torch is loaded already."""
    with TemporaryDirectory() as logs:
        return start(*arguments, logs=Path(logs), cwd=cwd, piped=piped, **(env or {})).wait(timeout)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not SHARED.is_dir():
        for item in items:
            if "shared" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=f"no {SHARED}"))
