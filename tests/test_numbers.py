"""The same input gives the same bytes, and a checkpoint the outputs that it had when it was bundled."""

import numpy as np
import pytest
import torch
from golden_outputs import GOLDEN, key, outputs
from PIL import Image

from mdrn_cli.batch import run_jobs
from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.engine import Engine
from mdrn_cli.jobs import plan_jobs
from mdrn_cli.manifest import load_manifest
from mdrn_cli.metrics import psnr, to_uint8
from mdrn_cli.naming import Naming
from mdrn_cli.noise import add_noise
from mdrn_cli.restore import DenoiseOptions
from mdrn_cli.weights import BUNDLED

RECORDS = load_manifest()
GOLDEN_TOLERANCE = 1e-4
"""A fortieth of a step of 8 bits. Other releases of torch and other processors add up in another order: units in the
last place of float32, 1e-7 at these intensities, which some forty layers can make a hundred of."""


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)
def test_outputs_are_the_golden_ones(record):
    with np.load(GOLDEN, allow_pickle=False) as golden:
        for name, values in outputs(record).items():
            assert name in golden.files, f"{record.name} was replaced: run `make golden` and look at what changed"
            np.testing.assert_allclose(values, golden[name], rtol=0, atol=GOLDEN_TOLERANCE)


def test_the_golden_file_has_no_more_than_the_bundled_checkpoints():
    with np.load(GOLDEN, allow_pickle=False) as golden:
        assert {*golden.files} == {key(record, name) for record in RECORDS for name in ("waves", "shapes")}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU and MDRN_TEST_CUDA=1")
@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)
def test_cuda_agrees_with_the_cpu(record, photo, gray_photo):
    clean = (photo if record.color == "color" else gray_photo)[64:320, 128:384]
    noisy, checkpoint = add_noise(clean, record.sigma), load_checkpoint(BUNDLED / record.file)
    quality = [psnr(to_uint8(Engine(checkpoint, device)(noisy)), clean) for device in ("cpu", "cuda")]
    assert quality[1] == pytest.approx(quality[0], abs=0.01)


@pytest.fixture
def pictures(tmp_path, photo):
    """Of different sizes and noise levels, tiled and not, gray and in color."""
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(photo[:45, 100:320]).save(folder / "a.png")
    Image.fromarray(photo[300:330, 100:120]).save(folder / "b.png")
    Image.fromarray(photo[:40, :60]).convert("L").save(folder / "c.png")
    return sorted(folder.iterdir())


def denoised(files, out, options):
    outcomes = list(run_jobs(plan_jobs(files, Naming(out)), options))
    assert all(outcome.error is None for outcome in outcomes)
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_bytes_for_any_number_of_threads_and_in_any_order(tmp_path, pictures, monkeypatch, precision):
    """Of the files in a run, and so of the networks loaded: each level is estimated."""
    options = DenoiseOptions(model="mdrn-2b", tile=192, device="cpu", precision=precision)
    monkeypatch.setenv("MDRN_THREADS", "1")
    expected = denoised(pictures, tmp_path / "one", options)
    assert len(expected) == 3
    monkeypatch.setenv("MDRN_THREADS", "2")
    assert denoised(pictures[::-1], tmp_path / "two", options) == expected
    (tmp_path / "alone").mkdir()
    assert denoised(pictures[1:2], tmp_path / "alone", options) == {"b.png": expected["b.png"]}
