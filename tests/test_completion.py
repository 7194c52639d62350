"""What the shell offers when Tab is pressed."""

import os
import subprocess
import sys

import pytest
from conftest import run_mdrn

from mdrn_cli.cachecontent import KINDS
from mdrn_cli.hardware import PRECISIONS
from mdrn_cli.losses import LOSSES
from mdrn_cli.manifest import load_manifest
from mdrn_cli.model import COLOR_CHANNELS
from mdrn_cli.optim import OPTIMIZERS
from mdrn_cli.trainconfig import MODES, PRESETS, SCHEDULES

NAMES = [record.name for record in load_manifest()]


def offered_after(*words):
    """What completes the last of the words."""
    asked = {"_MDRN_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = run_mdrn(env=asked)
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("bench Set12 --color", COLOR_CHANNELS),
        ("cache clear", KINDS),
        ("denoise a.png --precision", PRECISIONS),
        ("distill --mode", MODES),
        ("train --color", COLOR_CHANNELS),
        ("train --loss", LOSSES),
        ("train --optimizer", OPTIMIZERS),
        ("train --preset", PRESETS),
        ("train --schedule", SCHEDULES),
        ("distill --teacher", NAMES),
        ("train --init", NAMES),
        ("weights export", NAMES),
    ],
)
def test_all_that_is_taken_is_offered(words, names):
    assert set(offered_after("mdrn", *words.split(), "''")) == set(names)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("denoise --model mdrn-2b-g", "mdrn-2b-gray-50"),
        ("denoise --format w", "webp"),
        ("bench --precision f", "float32"),
        ("bench Kod", "Kodak24"),
        ("weights verify mdrn-color-7", "mdrn-color-70"),
    ],
)
def test_what_has_begun_is_completed(words, name):
    assert name in offered_after("mdrn", *words.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_it_is_installed(shell, tmp_path):
    # Else typer looks what shell this is, and does not ask.
    env = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    assert run_mdrn("--install-completion", shell, env=env).returncode == 0
    scripts = [path for path in tmp_path.rglob("*mdrn*") if path.is_file()]
    assert len(scripts) == 1
    assert f"complete_{shell}" in scripts[0].read_text()


def test_it_is_that_of_mdrn_by_python_too(tmp_path):
    env = os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "mdrn_cli", "--install-completion", "bash"]
    subprocess.run(command, env=env, check=True, timeout=120)
    (script,) = (path for path in tmp_path.rglob("*mdrn*") if path.is_file())
    assert script.name == "mdrn.sh"
    assert script.read_text().split()[-1] == "mdrn"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="homes of Windows are found otherwise")
def test_a_home_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "home").write_bytes(b"")
    env = {"HOME": str(tmp_path / "home"), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = run_mdrn("--install-completion", "bash", env=env)
    assert (done.returncode, "unexpected" in done.stderr) == (1, False), done.stderr
    assert "cannot write" in done.stderr
