"""The fused network does what the plain one does."""

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint

from mdrn_cli.engine import Engine
from mdrn_cli.fused import FusedMSAG, fuse, fusible

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not fusible(CPU), reason="this torch has no oneDNN")


@needs_onednn
@pytest.mark.parametrize("color", ["gray", "color"])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 7), (48, 64)])
def test_it_computes_the_same(color, size):
    checkpoint = tiny_checkpoint(color=color)
    plain, fused = checkpoint.build(), fuse(checkpoint.build().to(memory_format=torch.channels_last))
    noisy = torch.rand(2, plain.config.channels, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert all(isinstance(group, FusedMSAG) for group in fused.groups.values())
        assert torch.allclose(fused(noisy), plain(noisy), atol=1e-6)


@needs_onednn
def test_in_bfloat16_it_rounds_no_more_often_than_the_plain_network():
    image = np.random.default_rng(0).random((1, 64, 64), np.float32)
    checkpoint = tiny_checkpoint()
    exact = Engine(checkpoint, "cpu", "float32")(image)
    plain = checkpoint.build().to(torch.bfloat16, memory_format=torch.channels_last)
    with torch.inference_mode():
        rounded = plain(torch.from_numpy(image)[None])[0].numpy()
    fused = Engine(checkpoint, "cpu", "bfloat16")(image)
    assert np.square(fused - exact).mean() <= 1.1 * np.square(rounded - exact).mean()


@needs_onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_in_place_leave_alone_what_is_needed_later(dtype):
    checkpoint = tiny_checkpoint(blocks=3)
    plain = checkpoint.build().to(dtype, memory_format=torch.channels_last)
    fused = fuse(checkpoint.build().to(dtype, memory_format=torch.channels_last))
    sides = 16, 16, 8
    features = [torch.randn(1, 8, side, side).to(dtype, memory_format=torch.channels_last) for side in sides]
    inputs, coarse = features[:2], (features[2], plain.restore["0_2"])
    before = [one.clone() for one in features]
    with torch.inference_mode():
        expected, given = (network.groups["0_2"](inputs, coarse) for network in (plain, fused))
    torch.testing.assert_close(given.float(), expected.float(), atol=0.05 if dtype == torch.bfloat16 else 1e-5, rtol=0)
    assert all(map(torch.equal, features, before))


def test_where_onednn_lacks_the_plain_network_runs(monkeypatch):
    image = np.random.default_rng(0).random((1, 24, 32), np.float32)
    fused = Engine(tiny_checkpoint(), "cpu", "float32")(image)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    engine = Engine(tiny_checkpoint(), "cpu", "float32")
    assert not any(isinstance(group, FusedMSAG) for group in engine.model.groups.values())
    assert np.allclose(engine(image), fused, atol=1e-6)
