"""Many images, a large one, many processes at once. `make stress` runs these at full size (docs/reliability.md)."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import start
from conftest import record_json, tiny_checkpoint
from PIL import Image
from safetensors.torch import load_file

from mdrn_cli.checkpoint import save_checkpoint
from mdrn_cli.manifest import parse_record, save_manifest
from mdrn_cli.paths import sha256_of
from mdrn_cli.weights import item_of

MIB = 1 << 20
SUFFIXES = ("png", "jpg", "tif", "bmp", "webp")


def small_images(folder: Path, photo: np.ndarray, count: int) -> Path:
    """Images of 16x16 in every format, 16 of a kind being alike."""
    folder.mkdir()
    for suffix in SUFFIXES:
        Image.fromarray(photo[100:116, 200:216]).save(folder / f"0.{suffix}")
    for k in range(len(SUFFIXES), count):
        shutil.copyfile(folder / f"0.{SUFFIXES[k % 5]}", folder / f"{k}.{SUFFIXES[k % 5]}")
    return folder


def resident(pid: int) -> float:
    """Memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory of another process is read in /proc")
def test_memory_and_descriptors_stay_flat_over_many_images(tmp_path, photo, tiny_weights, full_size):
    count, warm = (10_000, 500) if full_size else (160, 60)
    folder = small_images(tmp_path / "small", photo, count)
    command = [sys.executable, "-m", "mdrn_cli", "denoise", folder, "-o", tmp_path / "out", "--json", "--sigma", 50]
    command = [*map(str, command), "--model", str(tiny_weights("color"))]
    memory, descriptors = {}, {}
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for done, line in enumerate(process.stdout, 1):
            if done <= count and (done % warm == 0 or done == count):
                assert json.loads(line)["status"] == "done"
                memory[done] = resident(process.pid)
                descriptors[done] = len(os.listdir(f"/proc/{process.pid}/fd"))  # noqa: PTH208
    assert process.returncode == 0
    assert len(list((tmp_path / "out").iterdir())) == count
    growth = max(memory.values()) - memory[warm]
    spent = time.monotonic() - began
    print(f"\n{count} images, {spent:.0f} s: {memory[warm]:.0f} MiB after {warm}, then at most {growth:+.1f} MiB")
    print(
        f"descriptors: {descriptors[warm]} after {warm}, then {min(descriptors.values())}-{max(descriptors.values())}"
    )
    assert growth < 50
    # The reader and the writer each may have a file open at the moment.
    assert max(descriptors.values()) <= descriptors[warm] + 2


_PEAK = """
import json, resource, sys
from mdrn_cli.cli import main
code = main()
print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_memory_of_a_large_image_is_a_few_bytes_a_pixel(tmp_path, photo, tiny_weights, full_size, suffix):
    """A tile at a time is held as floats; of the whole only input, result and file."""
    side = 10_000 if full_size else 1500
    times = -(-side // 512)
    Image.fromarray(np.tile(photo, (times, times, 1))[:side, :side]).save(tmp_path / f"large.{suffix}")

    def peak(name: str) -> tuple[float, float]:
        began = time.monotonic()
        arguments = ["denoise", tmp_path / name, "--sigma", 50, "--model", tiny_weights("color"), "--overwrite"]
        arguments += ["--tile", 512]  # the same for both
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stderr.splitlines()[-1])["peak"] * 1024, time.monotonic() - began

    Image.fromarray(photo).save(tmp_path / f"small.{suffix}")
    (large, seconds), (small, _) = peak(f"large.{suffix}"), peak(f"small.{suffix}")
    per_pixel = (large - small) / (side * side - 512 * 512)
    print(f"\n{side}x{side} {suffix}: {seconds:.0f} s, peak {large / MIB:.0f} MiB, {per_pixel:.1f} bytes a pixel")
    with Image.open(tmp_path / f"large_mdrn.{suffix}") as out:
        assert out.size == (side, side)
    # A row of tiles as floats is a small part of 100 megapixels, and a third of 2.
    assert per_pixel < (10 if full_size else 40)


def test_eight_processes_at_once_on_one_cache_and_one_output_tree(tmp_path, photo, full_size):
    """The cache is empty at first: all want the same file. All do the same tree: results are whole, work is shared."""
    mirror, out = tmp_path / "mirror", tmp_path / "out"
    mirror.mkdir()
    weights = mirror / "tiny-color.safetensors"
    save_checkpoint(weights, tiny_checkpoint("color"), torch.float32)
    about = {"name": "tiny-color", "file": weights.name, "color": "color"}
    record = parse_record(record_json(**about, sha256=sha256_of(weights), bytes=weights.stat().st_size))
    save_manifest(tmp_path / "m.json", [record])
    folder = small_images(tmp_path / "small", photo, 1000 if full_size else 40)
    how = ["denoise", folder, "--sigma", 50, "--manifest", tmp_path / "m.json", "--model", "tiny-color", "--json"]
    told = {"logs": tmp_path / "logs", "MDRN_WEIGHTS_URL": str(mirror)}
    one = start(*how, "-o", tmp_path / "one", **told, MDRN_HOME=str(tmp_path / "own")).wait()
    assert one.returncode == 0, one.stderr
    expected = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    commands = [start(*how, "-o", out, **told) for _ in range(8)]
    finished = [command.wait() for command in commands]
    assert [done.returncode for done in finished] == [0] * 8, [done.stderr for done in finished]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == expected
    summaries = [json.loads(done.stdout.splitlines()[-1]) for done in finished]
    assert all(summary["done"] + summary["skipped"] == len(expected) for summary in summaries)
    done = sum(summary["done"] for summary in summaries)
    print(f"\n8 processes, {len(expected)} images: {done} done in all")
    assert len(expected) <= done < 8 * len(expected)
    cached = Path(os.environ["MDRN_HOME"]) / "files" / record.sha256
    assert sorted(path.name for path in cached.iterdir()) == ["about.json", weights.name]
    assert sha256_of(cached / weights.name) == item_of(record).sha256
    assert load_file(cached / weights.name)
