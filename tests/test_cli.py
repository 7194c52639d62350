"""The command as a whole: quick to answer, one error boundary."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import run_mdrn
from PIL import Image

import mdrn_cli


@pytest.mark.parametrize("arguments", [["--help"], ["denoise", "--help"], ["train", "--help"], ["bench", "--help"]])
def test_help_answers_without_torch(arguments):
    script = (
        "import sys; from mdrn_cli.cli import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "assert not {'torch', 'numpy', 'PIL', 'safetensors', 'pydantic'} & sys.modules.keys(), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_help_costs_little_beside_the_library_that_prints_it():
    """In processes as users start them; a number of seconds would be the machine's, not ours."""
    environment = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}

    def seconds(*arguments):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=True)
        return time.perf_counter() - began

    pairs = [(seconds("-c", "import typer.rich_utils"), seconds("-m", "mdrn_cli", "--help")) for _ in range(5)]
    library, ours = map(min, zip(*pairs, strict=True))
    assert ours < 2.5 * library


@pytest.mark.parametrize("command", ["denoise", "bench", "train", "estimate", "cache clear", "weights pack"])
def test_help_shows_no_value_where_an_option_takes_none(command):
    """Some versions of typer show one of flags; that of --help is theirs."""
    lines = run_mdrn(*command.split(), "--help").stdout.splitlines()
    flags = [line for line in lines if re.match(r"\W*--(?!help)", line)]
    assert flags
    assert not any("<bool>" in line or "BOOLEAN" in line for line in flags)


def test_version():
    assert run_mdrn("--version").stdout == f"mdrn {mdrn_cli.__version__}\n"


def test_no_command_is_a_usage_error_that_shows_the_help():
    done = run_mdrn()
    assert done.returncode == 2
    assert "Usage" in done.stdout + done.stderr


def test_an_unknown_command_is_one_error_line():
    done = run_mdrn("denoize")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "denoise" in done.stderr


def test_debug_shows_the_traceback():
    plain = run_mdrn("denoise", "none.png", "--sigma", 50)
    assert "Traceback" not in plain.stderr
    for arguments in (
        ["--debug", "denoise", "none.png"],
        ["denoise", "none.png", "--debug"],
        ["--debug", "denoise", "none.png", "--debug"],
    ):
        debugged = run_mdrn(*arguments, "--sigma", 50)
        assert "Traceback" in debugged.stderr
        assert debugged.returncode == plain.returncode == 4


def test_weights_list():
    done = run_mdrn("weights", "list")
    assert done.returncode == 0
    assert "mdrn-2b-gray-50" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["denoise", "a.png", "-o", "--dry-run"], "-o is given no value, but the option --dry-run"),
        (["denoise", "a.png", "--report", "-q"], "--report is given no value, but the option -q"),
        (["weights", "list", "--manifest", "--json"], "--manifest is given no value, but the option --json"),
        (["denoise", "-o", "--sigma=20", "a.png"], "-o is given no value, but the option --sigma=20"),
        (["denoise", "a.png", "-ro", "--overwrite"], "-ro is given no value, but the option --overwrite"),
        (["denoise", "-o", "-rq", "a.png"], "-o is given no value, but the option -rq"),
        (["denoise", "-o", "--", "a.png"], "-o is given no value, but the option --"),
    ],
)
def test_an_option_is_not_taken_for_the_value_of_another(tmp_path, arguments, told):
    """As a variable of the shell that is not set would have it."""
    done = run_mdrn(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert not any(tmp_path.iterdir())


def test_what_is_named_like_an_option_can_be_given(tmp_path, photo):
    Image.fromarray(photo[:8, :8]).save(tmp_path / "--json", "PNG")
    (tmp_path / "--json").rename(tmp_path / "--json.png")
    for given in (["-o", "./--dry-run"], ["--output=--dry-run"], ["-o--dry-run"]):
        done = run_mdrn("denoise", *given, "--dry-run", "--", "--json.png", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"--json.png -> {Path('--dry-run', '--json.png')}\n")


@pytest.mark.skipif(os.name == "nt", reason="pipes of Windows are told of otherwise")
def test_where_nobody_reads_what_is_printed_the_exit_code_is_that_of_sigpipe(tmp_path, photo):
    for k in range(3):
        Image.fromarray(photo[:8, :8]).save(tmp_path / f"{k}.png")
    script = f"{sys.executable} -m mdrn_cli denoise *.png -o out --json | true; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(Path(mdrn_cli.__file__).parents[1])}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "141\n"
    assert "nobody reads standard output; " in done.stderr
    assert " of 3 inputs not tried" in done.stderr
