"""What is built is what works: the wheel, alone in an empty folder, finds its manifest and weights."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from mdrn_cli.manifest import load_manifest

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", folder, PROJECT], check=True, env={**os.environ, "PIP_NO_INPUT": "1"})
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_manifest_weights_and_references(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"weights_manifest.json", "py.typed", "reference/published.json"}
    wanted |= {f"weights/{record.file}" for record in load_manifest()}
    assert {f"mdrn_cli/{name}" for name in wanted} <= names
    assert wheel.stat().st_size < 100e6


def test_an_installed_wheel_denoises(wheel, tmp_path, photo):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    Image.fromarray(photo[:64, :64]).save(tmp_path / "a.png")
    script = (
        "import sys, pathlib, mdrn_cli; from mdrn_cli.cli import app\n"
        f"assert pathlib.Path(mdrn_cli.__file__).is_relative_to({str(site)!r}), mdrn_cli.__file__\n"
        "app(['denoise', 'a.png', '--sigma', '50'], standalone_mode=False)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "MDRN_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "a_mdrn.png").size == (64, 64)
