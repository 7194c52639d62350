"""`mdrn bench --speed`: what is measured, and how it is said."""

import json
import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import commands
import numpy as np
import pytest
from conftest import run_mdrn, tool_module
from typer.testing import CliRunner

from mdrn_cli import speed
from mdrn_cli.cli import app, bench
from mdrn_cli.cli.speed import to_markdown
from mdrn_cli.errors import DeviceError, MdrnError, OutOfMemoryError, UsageError
from mdrn_cli.interrupts import TerminatedError, terminable
from mdrn_cli.manifest import load_manifest
from mdrn_cli.peers import peers


def crash() -> None:
    raise ValueError("on purpose")


@pytest.fixture
def in_this_process(monkeypatch):
    """Processes of their own take seconds each."""
    monkeypatch.setattr(speed, "_alone", lambda case, *arguments: case(*arguments))


@pytest.mark.usefixtures("in_this_process")
def test_every_engine_and_peer_is_measured():
    done = CliRunner().invoke(app, ["bench", "--speed", "--tile", "32", "--megapixels", "0.02", "--json"])
    assert done.exit_code == 0, done.output
    about = json.loads(done.stdout)
    assert about["schema"] == "mdrn.speed/1"
    rows = about["results"]
    assert {row["name"] for row in rows} == {"mdrn", "mdrn-2b", *peers()}
    assert {row["what"] for row in rows} == {"network", "runtime", "peer", "start", "file", "tiles"}
    for row in rows:
        pixels = row["width"] * row["height"] / 1e6
        assert row["megapixels_per_second"] == pytest.approx(pixels / row["seconds"], rel=0.01, abs=1e-4)
        assert row["memory"] > 1e6
    plain = {row["name"]: row for row in rows if row["engine"] == speed.PLAIN}
    assert all(row["times_plain"] == 1 for row in plain.values())
    page = to_markdown(about["machine"], [speed.Speed(**_fields(row)) for row in rows])
    assert f"- mdrn-2b against DnCNN: {_ratio(rows):.2g} times as fast." in page


@pytest.mark.parametrize("form", ["--json", "--markdown", None])
def test_what_was_measured_before_an_error_is_shown(monkeypatch, form):
    def measure(*_arguments):
        yield speed.Speed("network", "mdrn-2b", "float32", 8, 8, 2.0, 2.0, 1)
        yield speed.Speed("peer", "DnCNN", "as published", 8, 8, 4.0, 4.0, 1)
        yield speed.Speed("file", "mdrn-2b", "float32", 8, 8, 4.0, 4.0, 1)
        raise OutOfMemoryError("too large", "a smaller tile")

    monkeypatch.setattr(speed, "measure_speed", measure)
    done = CliRunner().invoke(app, ["bench", "--speed", *filter(None, [form])])
    assert isinstance(done.exception, OutOfMemoryError)
    assert "DnCNN" in done.stdout
    assert "not all cases were measured" in done.stderr


def test_what_other_runtimes_reach_is_not_said_of_ours():
    cases = (("network", speed.PLAIN, 8.0), ("network", "float32", 4.0), ("runtime", "fast", 1.0))
    rows = [speed.Speed(what, "mdrn-2b", engine, 8, 8, seconds, seconds, 1) for what, engine, seconds in cases]
    page = to_markdown({}, rows)
    assert "- mdrn-2b: 2.0 times as fast as in plain float32 (float32)." in page
    assert "| mdrn-2b, one tile 8x8 | fast | 1 | 1 | 6.4e-05 | 8.00 |" in page


def _fields(row):
    return {key: row[key] for key in speed.Speed.__dataclass_fields__}


def _ratio(rows):
    ours = min(row["seconds"] for row in rows if (row["what"], row["name"]) == ("network", "mdrn-2b"))
    (dncnn,) = (row["seconds"] for row in rows if row["name"] == "DnCNN")
    return dncnn / ours


def test_peers_give_an_image_of_the_same_size():
    image = np.random.default_rng(0).random((3, 32, 48), np.float32)
    for name, make in peers().items():
        assert np.shape(make()(image)) == image.shape, name
    assert ("NLM (scikit-image)" in peers()) == bool(find_spec("skimage"))


def fall_short(error: MdrnError) -> None:
    raise error


def run_out() -> None:
    raise MemoryError


def vanish() -> None:
    os._exit(3)


def ask_for_the_end() -> None:
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(600)


@pytest.fixture
def forked(monkeypatch):
    """Processes that have torch loaded already."""
    monkeypatch.setattr("mdrn_cli.speed.multiprocessing.get_context", lambda _method: commands.SERVER)


def test_sigterm_ends_the_case_under_way():
    began = time.monotonic()
    with terminable(), pytest.raises(TerminatedError):
        speed._alone(ask_for_the_end)
    assert time.monotonic() - began < 300


@pytest.mark.usefixtures("forked")
def test_a_case_fails_as_what_it_failed_with():
    with pytest.raises(DeviceError, match="no device") as caught:
        speed._alone(fall_short, DeviceError("no device", "another one"))
    assert (caught.value.hint, caught.value.exit_code) == ("another one", 6)
    with pytest.raises(MdrnError, match=r"measuring crash failed \(ValueError: on purpose\)"):
        speed._alone(crash)
    with pytest.raises(OutOfMemoryError, match="measuring run_out ran out of memory"):
        speed._alone(run_out)
    with pytest.raises(MdrnError, match="ended with code 3"):
        speed._alone(vanish)
    with pytest.raises(MdrnError, match="no device 'nowhere'") as caught:
        speed._start_case("nowhere")
    assert caught.value.exit_code == 6


def test_a_case_runs_in_a_process_of_its_own():
    measured = speed._alone(speed._peer_case, "FFDNet", 16, "cpu")
    assert (measured.name, measured.width) == ("FFDNet", 16)


@pytest.mark.parametrize(
    ("size", "megapixels"), [(-8, 0), (0, 0), (12, 0), (32, -1), (32, 1e-9), (32, 1e9), (32, np.nan)]
)
def test_what_cannot_be_measured_is_refused_before_any_case(monkeypatch, size, megapixels):
    monkeypatch.setattr(speed, "_alone", crash)
    with pytest.raises(UsageError):
        next(speed.measure_speed(size, megapixels, "cpu"))


def test_reduced_precision_was_measured_for_every_bundled_checkpoint_and_costs_nothing():
    """The policy of --precision auto, on the figures of docs/speed.md (`benchmarks/speed.py precision`)."""
    root = Path(__file__).parent.parent
    figures = json.loads((root / "benchmarks" / "precision.json").read_text())
    assert figures.keys() == {f"{record.name} {record.sha256[:8]}" for record in load_manifest()}
    page = (root / "docs" / "speed.md").read_text()
    for key, row in figures.items():
        assert row["bfloat16"] > row["float32"] - 0.01, key
        assert f"| {key.split()[0]} | {row['set']} | {row['float32']:.4f} | {row['bfloat16']:.4f} |" in page


def test_the_page_is_what_the_benchmark_makes_of_the_figures(monkeypatch, tmp_path):
    benchmark = tool_module("speed", "benchmarks")
    written = benchmark.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(benchmark, "PAGE", tmp_path / "speed.md")
    monkeypatch.setattr("sys.argv", ["speed.py", "page"])
    benchmark.main()
    assert (tmp_path / "speed.md").read_text(encoding="utf-8") == written


def test_speed_takes_no_images():
    for arguments in (
        ["Set12", "--speed"],
        ["--speed", "--csv"],
        [],
        ["Set12", "--megapixels", 2],
        ["--speed", "--tile", 0],
    ):
        done = run_mdrn("bench", *arguments)
        assert done.returncode == 2
        assert done.stderr.count("error:") == 1


def test_megapixels_go_with_speed_alone():
    done = CliRunner().invoke(app, ["bench", "Set12", "--megapixels", "2"])
    assert isinstance(done.exception, UsageError)
    assert done.exception.message == "--megapixels goes with --speed"


@pytest.mark.usefixtures("in_this_process")
def test_options_that_do_nothing_are_refused_by_name(monkeypatch):
    monkeypatch.setenv("MDRN_DATA", "sets")
    options = "--sigma 25 --model mdrn --ensemble --data . --color gray --precision float32 --save x --manifest y"
    done = CliRunner().invoke(app, ["bench", "--speed", *options.split()])
    assert isinstance(done.exception, UsageError)
    named = done.exception.message.removeprefix("--speed cannot be combined with ").split(", ")
    assert sorted(named) == sorted(word for word in options.split() if word.startswith("--"))
    monkeypatch.setattr(bench, "bench_speed", lambda *_: None)
    allowed = CliRunner().invoke(app, ["bench", "--speed", "--tile", "64", "--device", "cpu", "--json", "--offline"])
    assert allowed.exit_code == 0
