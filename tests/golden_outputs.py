"""What the bundled checkpoints make of two small pictures, kept in `golden/outputs.npz` (`make golden` writes it)."""

from pathlib import Path

import numpy as np

from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.engine import Engine
from mdrn_cli.manifest import Record, load_manifest
from mdrn_cli.noise import add_noise
from mdrn_cli.weights import BUNDLED

GOLDEN = Path(__file__).parent / "golden" / "outputs.npz"


def clean_pictures(color: str) -> dict[str, np.ndarray]:
    """Generated, uint8 (H, W, C): waves that grow finer, and flat shapes with sharp edges."""
    y, x = np.mgrid[:21, :28]  # no multiples of 8, so that padding has its part
    waves = 127 + 100 * np.sin(x * (x + y) / 30)
    shapes = 60 + 130 * ((x - 13) ** 2 + (y - 10) ** 2 < 60) - 40 * (y > x + 4)
    planes = {"waves": (waves, waves[::-1], 255 - waves), "shapes": (shapes, shapes / 2, 2 * y + x)}
    count = 1 if color == "gray" else 3
    return {
        name: np.stack([np.rint(plane).astype(np.uint8) for plane in colors[:count]], axis=2)
        for name, colors in planes.items()
    }


def key(record: Record, picture: str) -> str:
    """Where an output is kept: a replaced checkpoint has another SHA-256, and so none."""
    return f"{record.name} {picture} {record.sha256}"


def outputs(record: Record) -> dict[str, np.ndarray]:
    """A checkpoint's outputs, float32 (C, H, W), not clipped, computed in float32 on the CPU."""
    engine = Engine(load_checkpoint(BUNDLED / record.file), "cpu", "float32")
    return {
        key(record, name): engine(add_noise(clean, record.sigma))
        for name, clean in clean_pictures(record.color).items()
    }


def write() -> None:
    """Replace the golden file by the outputs of the checkpoints as they are now."""
    found = [outputs(record) for record in load_manifest()]
    np.savez_compressed(GOLDEN, **{name: values for each in found for name, values in each.items()})


if __name__ == "__main__":
    write()
