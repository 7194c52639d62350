"""Measures the speed of this processor, and what reduced precision costs, into benchmarks/*.json and docs/speed.md.

python benchmarks/speed.py speed                           # minutes; the machine must be idle
python benchmarks/speed.py precision ../shared/data/test   # every bundled checkpoint on Set12 or Kodak24
python benchmarks/speed.py page                            # writes the page of the figures there are
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mdrn_cli.bench import measure
from mdrn_cli.cli.speed import to_markdown
from mdrn_cli.datasets import open_dataset
from mdrn_cli.denoisers import Denoisers
from mdrn_cli.devices import available_precisions, pick_device
from mdrn_cli.files import write_atomically
from mdrn_cli.manifest import load_manifest
from mdrn_cli.speed import Speed

FIGURES = Path(__file__).resolve().parent
PAGE = FIGURES.parent / "docs" / "speed.md"
SETS = {"gray": "Set12", "color": "Kodak24"}
PRECISIONS = ("float32", "bfloat16")


def measure_speed() -> None:
    """Everything `mdrn bench --speed` measures. The page has a processor of each kind."""
    command = [sys.executable, "-m", "mdrn_cli", "bench", "--speed", "--device", "cpu", "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    _write(kind_of_processor(), json.loads(done.stdout))


def kind_of_processor() -> str:
    """Of the figures' file: as this one multiplies bfloat16, by tiles (AMX), by vectors or not."""
    if "bfloat16" not in available_precisions(pick_device("cpu")):
        return "speed-float32"
    flags = Path("/proc/cpuinfo")
    return "speed-amx" if flags.exists() and " amx_bf16" in flags.read_text() else "speed"


def measure_precision(data: Path) -> None:
    """PSNR of every bundled checkpoint at its own level in float32 and bfloat16; gone on with where it was left."""
    stored = _read("precision")
    for record in load_manifest():
        key = f"{record.name} {record.sha256[:8]}"
        if key in stored:
            continue
        dataset = open_dataset(SETS[record.color], data)
        stored[key] = {"set": dataset.name}
        for precision in PRECISIONS:
            denoiser = Denoisers(record.name, "cpu", precision).find(record.color, record.sigma)
            stored[key][precision] = round(measure(dataset, record.sigma, record.name, denoiser).mean("psnr"), 4)
        current = {f"{record.name} {record.sha256[:8]}" for record in load_manifest()}
        _write("precision", {key: value for key, value in stored.items() if key in current})


def page() -> str:
    """The page docs/speed.md."""
    parts = [
        INTRODUCTION,
        to_markdown(*_speeds("speed")),
        RUNTIMES_REMARK.rstrip(),
        AMX_INTRODUCTION,
        to_markdown(*_speeds("speed-amx")),
        AMX_REMARK.rstrip(),
        FLOAT32_INTRODUCTION,
        to_markdown(*_speeds("speed-float32")),
        FLOAT32_REMARK.rstrip(),
        GPU_REMARK.rstrip(),
        precision_table(_read("precision")),
        "",
    ]
    return "\n".join(parts)


def _speeds(name: str) -> tuple[dict[str, Any], list[Speed]]:
    """The machine, and what was measured there."""
    stored = _read(name)
    fields = Speed.__dataclass_fields__
    return stored["machine"], [Speed(**{key: row[key] for key in fields}) for row in stored["results"]]


def precision_table(stored: dict[str, Any]) -> str:
    """The section of the page."""
    lines = [f"| {' | '.join(('checkpoint', 'set', *PRECISIONS, 'difference'))} |", "|---|---|---|---|---|"]
    for key, row in stored.items():
        exact, reduced = (row[name] for name in PRECISIONS)
        lines.append(f"| {key.split()[0]} | {row['set']} | {exact:.4f} | {reduced:.4f} | {reduced - exact:+.4f} |")
    return "\n".join([PRECISION_INTRODUCTION, *lines])


# By hand, of the figures of benchmarks/speed.json and speed-float32.json.
RUNTIMES_REMARK = """
`mdrn denoise` runs neither OpenVINO nor ONNX Runtime: by this table torch's fused bfloat16, which it takes where the
processor has it, is faster than both. In float32 OpenVINO gains 10 % with B = 8 here and 2 % on the processor without
bfloat16 below, is slower on that with AMX, and gains nothing with B = 2; that is not worth a second engine to install,
to trust and to test.

Tiles are done one at a time on a CPU: batches of two and four of 256 pixels and more gain nothing (two other cores, in
bfloat16, B = 2: 0.534, 0.530 and 0.521 megapixels a second of 512x512; B = 8: 0.167, 0.164 and 0.153). Of 128x128
pixels, which memory seldom asks for, four at a time gain a quarter.
"""

INTRODUCTION = """# Speed

Made by `make speed`, which runs `mdrn bench --speed`; each case in a process of its own, color. A tile is the
fastest of three calls after a first one; a fresh process the faster of two after a first one; a JPEG file is done
once; the network alone on as many pixels is the faster of two calls on one of the file's tiles, times their number.
"plain float32" is torch without anything of ours: channels first, nothing fused. Peers are networks of the
published shape in plain float32 torch, and packages as their documentation uses them. ONNX Runtime and OpenVINO run
our network's ONNX model (`pip install 'mdrn-cli[openvino]'`).
"""

AMX_INTRODUCTION = """
## On a processor with tiles of bfloat16

Two virtual processors of a Xeon with AMX, whose speed changes twofold within hours.
"""

AMX_REMARK = """
Here OpenVINO is faster with B = 2, by a quarter, and slower with B = 8. (The fresh process and the file were measured
once more by themselves: without bytecode of torch, PYTHONDONTWRITEBYTECODE being set, the first took 5.8 seconds, and
the machine was faster when the network alone was timed than while the file was done.)
"""

FLOAT32_INTRODUCTION = """
## On a processor without bfloat16

Two cores of an older one (AVX2).
"""

FLOAT32_REMARK = """
What takes bfloat16 to reach: B = 2 five times as fast as DnCNN, and a fresh process done in 3 seconds. (The machine was
shared, and slower while the network alone was timed than while the file was done.)
"""

# By hand: measured on a lent machine (MDRN color 25).
GPU_REMARK = """
## On a GPU

One H200, bfloat16, the network alone, B = 8 in color: 1024x1024 pixels in 18.3 ms by our kernels (57 megapixels a
second), 56.7 ms by torch as it comes, 81 ms in float32; 256x256 in 11.9, 32.4 and 33.6 ms. The kernels are compiled at
first use, which takes some seconds, and kept in the cache folder.

A JPEG of 24 megapixels (6000x4000, noise 25 told) took 8.6 s in `mdrn denoise`, in 35 tiles of 1024 pixels: by the
figures above the network's part of that is 0.7 s. Most of the rest was mending clipped pixels, 0.2 s a megapixel on one
core of another machine. Since then threads do that while the GPU is at other tiles, which has not been measured there.
"""

PRECISION_INTRODUCTION = """
## Precision

`--precision auto` computes in bfloat16 where the processor multiplies it natively, else in float32. The head, which
alone sees intensities, is always computed in float32: with it in bfloat16 a network for sigma 2 lost 0.05 dB. What
bfloat16 costs, PSNR in dB, each checkpoint at its own noise level; 0.01 dB is the most allowed:
"""


def _read(name: str) -> dict[str, Any]:
    path = FIGURES / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _write(name: str, figures: dict[str, Any]) -> None:
    write_atomically(FIGURES / f"{name}.json", (json.dumps(figures, indent=1) + "\n").encode())


def main() -> None:
    """One of the three."""
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what == "speed":
        measure_speed()
    elif what == "precision" and len(sys.argv) == 3:
        measure_precision(Path(sys.argv[2]))
    elif what != "page":
        sys.exit(__doc__)
    write_atomically(PAGE, page().encode())


if __name__ == "__main__":
    main()
