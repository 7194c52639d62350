"""Checkpoints are read strictly and adapted without changing the function."""

import json

import pytest
import torch
from conftest import tiny_checkpoint
from safetensors.torch import load_file, save_file

from mdrn_cli.checkpoint import METADATA_KEY, adapt, load_checkpoint, save_checkpoint
from mdrn_cli.errors import WeightsError
from mdrn_cli.model import MDRN, MDRNConfig


def built(config, state):
    model = MDRN(config)
    model.load_state_dict(state)
    return model.eval()


def test_round_trip_keeps_weights_config_and_record(tmp_path):
    before = tiny_checkpoint("color", 30.0)
    save_checkpoint(tmp_path / "a.safetensors", before, torch.float32)
    after = load_checkpoint(tmp_path / "a.safetensors")
    assert (after.config, after.sigma, after.record) == (before.config, before.sigma, before.record)
    assert all(torch.equal(after.state[name], before.state[name]) for name in before.state)


def test_reading_a_network_draws_nothing_and_shares_nothing(tmp_path):
    """A program that has seeded torch's generator gets the same numbers whatever is loaded meanwhile."""
    save_checkpoint(tmp_path / "a.safetensors", tiny_checkpoint())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    checkpoint = load_checkpoint(tmp_path / "a.safetensors")
    model, other = checkpoint.build(), checkpoint.build()
    assert torch.equal(torch.rand(3), expected)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, checkpoint.state[name])
    assert any(tensor.any() for tensor in checkpoint.state.values())


def test_float16_is_the_default_and_loads_as_float32(tmp_path):
    before = tiny_checkpoint()
    save_checkpoint(tmp_path / "a.safetensors", before)
    assert all(t.dtype == torch.float16 for t in load_file(tmp_path / "a.safetensors").values())
    after = load_checkpoint(tmp_path / "a.safetensors")
    assert all(torch.equal(after.state[n], before.state[n].half().float()) for n in before.state)


def test_saving_leaves_no_partial_file_and_refuses_what_is_not_finite(tmp_path):
    broken = tiny_checkpoint()
    broken.state["head.bias"] = torch.full((8,), 1e6)  # beyond float16
    with pytest.raises(WeightsError, match="not finite"):
        save_checkpoint(tmp_path / "a.safetensors", broken)
    assert list(tmp_path.iterdir()) == []


def altered(tmp_path, change_state=None, change_about=None, drop_metadata=False):
    path = tmp_path / "a.safetensors"
    checkpoint = tiny_checkpoint()
    save_checkpoint(path, checkpoint, torch.float32)
    state = dict(checkpoint.state)
    about = {"format": "mdrn.checkpoint/1", "config": checkpoint.config.to_dict(), "sigma": 50.0, "record": {}}
    if change_state:
        change_state(state)
    if change_about:
        change_about(about)
    save_file(state, path, None if drop_metadata else {METADATA_KEY: json.dumps(about)})
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"change_state": lambda s: s.pop("tail.bias")}, "lacks the tensor tail.bias"),
        ({"change_state": lambda s: s.update(extra=torch.zeros(1))}, "does not: extra"),
        ({"change_state": lambda s: s.update({"tail.bias": torch.zeros(2)})}, "tail.bias"),
        ({"change_state": lambda s: s.update({"tail.bias": torch.zeros(1, dtype=torch.int32)})}, "tail.bias"),
        ({"change_state": lambda s: s.update({"tail.bias": torch.tensor([float("nan")])})}, "not finite"),
        ({"change_about": lambda a: a.update(format="other/9")}, "other/9"),
        ({"change_about": lambda a: a["config"].update(blocks=3)}, "lacks the tensor"),
        ({"change_about": lambda a: a["config"].update(blocks=10**12)}, "blocks must be"),
        ({"change_about": lambda a: a["config"].update(depth=3)}, "bad metadata"),
        ({"change_about": lambda a: a.update(sigma=-1)}, "sigma"),
        ({"change_about": lambda a: a.pop("sigma")}, "bad metadata"),
        ({"change_about": lambda a: a.update(sigma=10**400)}, "bad metadata"),
        ({"drop_metadata": True}, "bad metadata"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path, change, message):
    path = altered(tmp_path, **change)
    with pytest.raises(WeightsError, match=message) as caught:
        load_checkpoint(path)
    assert str(path) in caught.value.message


def test_metadata_nested_without_end_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(tiny_checkpoint().state, path, {METADATA_KEY: "[" * 200_000})
    with pytest.raises(WeightsError, match="bad metadata"):
        load_checkpoint(path)


def test_missing_truncated_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="no checkpoint file"):
        load_checkpoint(tmp_path / "none.safetensors")
    path = altered(tmp_path)
    whole = path.read_bytes()
    for content in (whole[:100], whole[:-1], b"", b"\x80\x04pickle", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="safetensors"):
            load_checkpoint(path)


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_growth_in_blocks_preserves_the_function(blocks):
    source = tiny_checkpoint(blocks=1)
    config = MDRNConfig("gray", blocks, 8)
    image = torch.rand(1, 1, 24, 32)
    with torch.inference_mode():
        grown, original = built(config, adapt(source, config))(image), source.build()(image)
    assert torch.equal(grown, original)


def test_grown_blocks_can_learn():
    config = MDRNConfig("gray", 2, 8)
    model = built(config, adapt(tiny_checkpoint(blocks=1), config))
    model(torch.rand(1, 1, 16, 16)).square().sum().backward()
    appended = model.groups["0_0"].blocks[1]
    assert appended.conv_out.weight.grad.abs().max() > 0


def test_color_from_gray_treats_luma_as_before_and_can_tell_channels_apart():
    source = tiny_checkpoint("gray")
    config = MDRNConfig("color", 1, 8)
    torch.manual_seed(3)
    model = built(config, adapt(source, config))
    gray = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        out = model(gray.repeat(1, 3, 1, 1))
        torch.testing.assert_close(out.mean(dim=1, keepdim=True), source.build()(gray), atol=1e-5, rtol=0)
    gradient = torch.autograd.grad((model(torch.rand(1, 3, 16, 16)) ** 2).sum(), model.tail.weight)[0]
    assert not torch.allclose(gradient[0], gradient[1])


def test_gray_from_color_does_what_color_does_to_gray_images():
    source = tiny_checkpoint("color")
    config = MDRNConfig("gray", 1, 8)
    gray = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        out = built(config, adapt(source, config))(gray)
        expected = source.build()(gray.repeat(1, 3, 1, 1)).mean(dim=1, keepdim=True)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [MDRNConfig("gray", 1, 8), MDRNConfig("gray", 3, 16)])
def test_shrinking_and_other_widths_are_refused(config):
    with pytest.raises(WeightsError):
        adapt(tiny_checkpoint(blocks=2), config)
