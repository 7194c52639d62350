"""A checkpoint exported to ONNX computes what the network does, at any size."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import run_mdrn, tiny_checkpoint
from typer.testing import CliRunner

from mdrn_cli import onnxexport, weights
from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.cli import app
from mdrn_cli.cli.boundary import run
from mdrn_cli.engine import Engine
from mdrn_cli.errors import MdrnError, UsageError
from mdrn_cli.manifest import load_manifest
from mdrn_cli.metrics import psnr, to_uint8
from mdrn_cli.noise import add_noise
from mdrn_cli.onnxexport import CHECKED_SIZES, check, to_onnx
from mdrn_cli.runtimes import runtimes
from mdrn_cli.weights import BUNDLED


@pytest.mark.parametrize("color", ["gray", "color"])
def test_the_exported_model_is_the_network_at_any_size(color):
    checkpoint = tiny_checkpoint(color, 25.0, blocks=2)
    content = to_onnx(checkpoint)
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"sigma": "25", "color": color}
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    network = checkpoint.build()
    for size in [(32, 40), (33, 47), (8, 1), (1, 1), (5, 7)]:
        noisy = torch.rand(2, checkpoint.config.channels, *size)
        with torch.inference_mode():
            expected = network(noisy).numpy()
        (given,) = session.run(None, {"noisy": noisy.numpy()})
        np.testing.assert_allclose(given, expected, atol=2e-5)
    assert any(side % 8 for size in CHECKED_SIZES for side in size)
    assert check(content, checkpoint) < 2e-5


def test_other_runtimes_agree_with_the_engine(photo, gray_photo, full_size):
    """Within 0.01 dB in float32; in bfloat16, where OpenVINO rounds the image too, from sigma 25 on, and over more
    pixels, for what rounding costs differs from place to place (0.002 to 0.012 dB). Of the bundled checkpoints of one
    shape the first and the last; at full size all."""
    by_level = sorted(load_manifest(), key=lambda record: record.sigma)
    ends = [{(one.family, one.color): one for one in records} for records in (by_level, reversed(by_level))]
    names = set()
    for record in by_level if full_size else [record for shapes in ends for record in shapes.values()]:
        checkpoint = load_checkpoint(BUNDLED / record.file)
        for name, make in runtimes().items():
            runtime, precision = name.split()[0], name.split()[-1]
            names.add(runtime)
            if precision == "bfloat16" and record.sigma < 25:
                continue
            side = 160 if precision == "bfloat16" else 96
            clean = (photo if record.color == "color" else gray_photo)[80 : 80 + side, 144 : 144 + side]
            noisy = add_noise(clean, record.sigma)
            ours, theirs = (
                psnr(to_uint8(one(noisy)), clean) for one in (Engine(checkpoint, "cpu", precision), make(checkpoint))
            )
            assert theirs == pytest.approx(ours, abs=0.01), (record.name, name)
    assert names == {"ONNX", "OpenVINO"}


def test_a_model_that_differs_is_refused():
    content = to_onnx(tiny_checkpoint(seed=1))
    with pytest.raises(MdrnError, match="differs from the network"):
        check(content, tiny_checkpoint(seed=2))


def test_without_the_extra_the_way_to_it_is_said(monkeypatch):
    content = to_onnx(tiny_checkpoint())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert check(content, tiny_checkpoint()) is None
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MdrnError, match="needs the package onnx") as caught:
        to_onnx(tiny_checkpoint())
    assert "pip install 'mdrn-cli[onnx]'" in caught.value.hint


def test_the_command_writes_a_checked_file(tmp_path, tiny_weights):
    output = tmp_path / "mine.onnx"
    done = run_mdrn("weights", "export", tiny_weights(), "--format", "onnx", "-o", output)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output}\n"
    assert "largest difference" in done.stderr
    onnx.checker.check_model(onnx.load(output))
    again = run_mdrn("weights", "export", tiny_weights(), "-o", output)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    assert run_mdrn("weights", "export", "mdrn-2b-gray-50", "--format", "pickle").returncode == 2
    link = tmp_path / "link.onnx"
    link.symlink_to(output)
    output.write_bytes(b"old")
    assert run_mdrn("weights", "export", tiny_weights(), "-o", link, "--overwrite").returncode == 0
    assert link.is_symlink()
    onnx.checker.check_model(onnx.load(output))


def test_a_model_that_nothing_here_can_check_is_written_with_a_warning(tmp_path, tiny_weights, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("sys.argv", ["mdrn", "weights", "export", str(tiny_weights()), "-o", str(tmp_path / "a.onnx")])
    assert run(app) == 0
    shown = capsys.readouterr()
    assert "warning: not checked: onnxruntime is not installed" in shown.err.splitlines()
    assert shown.out == f"{tmp_path / 'a.onnx'}\n"
    onnx.checker.check_model(onnx.load(tmp_path / "a.onnx"))


def test_what_cannot_be_written_is_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(onnxexport, "to_onnx", lambda _: pytest.fail("converted"))
    monkeypatch.setattr(weights, "locate", lambda _: pytest.fail("fetched"))
    for output, message in ((tmp_path / "none" / "a.onnx", "no folder"), (tmp_path, "is not a file")):
        arguments = ["weights", "export", "mdrn-2b-gray-50", "-o", str(output), "--overwrite"]
        done = CliRunner().invoke(app, arguments)
        assert isinstance(done.exception, UsageError)
        assert message in done.exception.message
