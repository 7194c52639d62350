"""Every example of docs/denoise.md runs, in the order of the page, in a folder that has what it names."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips
from conftest import rounded, run_mdrn
from PIL import Image

from mdrn_cli.metrics import psnr
from mdrn_cli.noise import add_noise

PAGE = (Path(__file__).parents[1] / "docs" / "denoise.md").read_text(encoding="utf-8")

SHELL = set("|<>*;&$")
"""Of which lines that only a shell understands have some."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo) -> Path:
    root = tmp_path_factory.mktemp("examples")
    clean = photo[60:140, 180:300]
    noisy = rounded(add_noise(clean, 25).transpose(1, 2, 0) * 255)
    Image.fromarray(clean).save(root / "truth.png")
    alpha = np.full((*noisy.shape[:2], 1), 128, np.uint8)
    Image.fromarray(np.concatenate([noisy, alpha], axis=2)).save(root / "clear.png")
    deep = noisy.astype(np.uint16) * 257
    pyvips.Image.new_from_array(deep).copy(interpretation="rgb16").write_to_file(str(root / "deep.tif"))
    Image.fromarray(deep[:, :, 0] // 257 * 16).save(root / "twelve-bits.png")
    (root / "photos" / "deeper").mkdir(parents=True)
    for name in ("photo.png", "photo.jpg", "copy.png", "photos/a.png", "photos/b.jpg", "photos/deeper/c.png"):
        Image.fromarray(noisy).save(root / name)
    return root


def lines() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines()]


@pytest.mark.parametrize("number", range(len(lines())), ids=lambda n: lines()[n])
def test_example(folder, number):
    line = lines()[number]
    if not SHELL & set(line):  # a process that has torch loaded
        words = shlex.split(line)
        assert words.pop(0) == "mdrn"
        done = run_mdrn(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
        return
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("COVERAGE_PROCESS_CONFIG", None)  # a quarter of the time, for lines that other tests run
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_examples_left_what_they_say(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"photo_mdrn.jpg", "clean.png", "restored/deeper/c.png", "some/b.jpg", "flat.jpg"} <= names
    assert {"before-after.png", "report.json", "piped.png", "sheet.png", "bare.jpg"} <= names
    assert not (folder / "as-png").exists()
    assert pyvips.Image.new_from_file(str(folder / "deep16.png")).format == "ushort"


def test_the_python_example(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for block in blocks("python"):
        exec(compile(block, "docs/denoise.md", "exec"), made := {})
    noisy, clean = (np.asarray(Image.open(folder / name)) for name in ("photo.png", "truth.png"))
    restored, sharper = made["restored"], made["sharper"]
    assert (restored.mode, restored.size) == (sharper.mode, sharper.size) == ("RGB", (120, 80))
    assert psnr(np.asarray(restored), clean) > psnr(noisy, clean) + 5
    assert 0 <= made["level"] < 5
    changed = np.abs(np.asarray(sharper, float) - np.asarray(restored)).mean()
    assert 0 < changed < np.abs(np.asarray(restored, float) - noisy).mean() / 4
