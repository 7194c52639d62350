"""The network is that of section 3.1 of the paper, to the parameter."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mdrn_cli.errors import WeightsError
from mdrn_cli.model import MDRN, MSAB, MSAG, MDRNConfig

GOLDEN = Path(__file__).parent / "golden" / "state_dict_2b_gray.json"


@pytest.mark.parametrize(
    ("color", "blocks", "parameters"),
    [
        ("gray", 8, 2_377_089),
        ("color", 8, 2_379_395),
        ("gray", 2, 768_129),
        ("color", 2, 770_435),
        ("gray", 40, 10_958_209),
        ("color", 40, 10_960_515),
    ],
)
def test_parameter_counts_are_those_of_the_paper(color, blocks, parameters):
    with torch.device("meta"):
        model = MDRN(MDRNConfig(color, blocks))
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_state_dict_names_and_shapes_are_frozen():
    shapes = {name: list(tensor.shape) for name, tensor in MDRN(MDRNConfig("gray", 2)).state_dict().items()}
    assert shapes == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (2, 3), (8, 8), (9, 17), (31, 64), (33, 5)])
def test_any_size_keeps_its_shape(size):
    model = MDRN(MDRNConfig("color", 1, 8)).eval()
    with torch.inference_mode():
        out = model(torch.rand(2, 3, *size))
    assert out.shape == (2, 3, *size)
    assert out.isfinite().all()


def test_padding_reflects_at_the_bottom_and_right():
    torch.manual_seed(0)
    model = MDRN(MDRNConfig("gray", 1, 8)).eval()
    image = torch.rand(1, 1, 21, 30)
    padded = F.pad(image, (0, 2, 0, 3), mode="reflect")
    with torch.inference_mode():
        torch.testing.assert_close(model(image), model(padded)[..., :21, :30])


def test_msab_is_the_block_of_the_paper():
    """Against a plain writing of section 3.1.1, the channel shuffle done on the features."""
    torch.manual_seed(1)
    block = MSAB(16)
    x = torch.randn(2, 16, 12, 11)
    near, far = F.relu(block.conv_in(x)).split(8, dim=1)
    y = torch.cat([F.relu(block.conv_d1(near)), F.relu(block.conv_d2(far))], dim=1)
    shuffled = F.channel_shuffle(y, 2)
    torch.testing.assert_close(block(x), block.conv_out(shuffled) + x)
    assert block.conv_d2.dilation == (2, 2)


def test_groups_are_wired_as_the_inverted_pyramid():
    """Each node must depend on exactly the earlier ones that the docstring of model.py names."""
    model = MDRN(MDRNConfig("gray", 1, 8)).double()
    called = {}
    for name, group in model.groups.items():
        group.register_forward_hook(
            lambda _m, args, out, name=name: called.update({name: ((list(args[0]), *args[1:]), out)})
        )
    model(torch.rand(1, 1, 16, 16, dtype=torch.float64))
    for i in range(4):
        assert called[f"{i}_0"][1].shape[-1] == 16 // 2**i
        for j in range(1, 4 - i):
            inputs, (coarse, restore) = called[f"{i}_{j}"][0]
            earlier = [called[f"{i}_{k}"][1] for k in range(j)]
            assert all(torch.equal(a, b) for a, b in zip(inputs, earlier, strict=True))
            assert torch.equal(coarse, called[f"{i + 1}_{j - 1}"][1])
            assert restore is model.restore[f"{i}_{j}"]
    for i in range(1, 4):
        (inputs,) = called[f"{i}_0"][0]
        assert torch.equal(inputs[0], model.degrade[i - 1](called[f"{i - 1}_0"][1]))


def test_a_group_fuses_its_inputs_and_the_reconstruction_as_the_paper_says():
    """Against a plain writing: reconstruct, concatenate, 1x1 convolution, blocks, long skip."""
    torch.manual_seed(2)
    group, restore = MSAG(3, MDRNConfig("gray", 2, 8)).double(), nn.ConvTranspose2d(8, 8, 2, stride=2).double()
    inputs, coarse = torch.randn(2, 2, 8, 12, 10).double().unbind(), torch.randn(2, 8, 6, 5).double()
    fused = group.fuse(torch.cat([*inputs, restore(coarse)], dim=1))
    torch.testing.assert_close(group(list(inputs), (coarse, restore)), fused + group.blocks(fused))


def test_the_tail_predicts_the_residual_from_the_last_group():
    model = MDRN(MDRNConfig("gray", 1, 8)).eval()
    x = torch.rand(1, 1, 16, 24)
    with torch.inference_mode():
        out, features = model.forward_features(x)
        torch.testing.assert_close(out, x - model.tail(features[-1]))
        torch.testing.assert_close(out, model(x))


def test_features_are_the_three_restored_groups_in_one_pass():
    model = MDRN(MDRNConfig("gray", 1, 8))
    seen = []
    for name in ("0_1", "0_2", "0_3"):
        model.groups[name].register_forward_hook(lambda _m, _a, out: seen.append(out))
    _, features = model.forward_features(torch.rand(1, 1, 20, 16))
    assert len(seen) == 3
    assert all(a is b for a, b in zip(features, seen, strict=True))
    assert [f.shape for f in features] == [(1, 8, 24, 16)] * 3


@pytest.mark.parametrize(
    "broken",
    [{"color": "cmyk"}, {"blocks": 0}, {"blocks": -1}, {"blocks": 10**9}, {"features": 7}, {"features": 2.0}],
)
def test_a_config_that_makes_no_network_is_refused(broken):
    with pytest.raises(WeightsError):
        MDRNConfig(**broken)
