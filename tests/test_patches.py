"""Training patches are true crops of the photographs, all equally likely, in all orientations."""

import numpy as np
import pytest
import torch

from mdrn_cli.errors import UsageError
from mdrn_cli.patches import PatchSampler
from mdrn_cli.photographs import PhotoFolder

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def together(*photos):
    """Photographs as reading them gives them."""
    pixels = np.concatenate([photo.reshape(-1, photo.shape[2]) for photo in photos])
    return PhotoFolder(pixels, [photo.shape[:2] for photo in photos], [], [])


def numbered(height, width, channels=1, first=0):
    """A photo whose every pixel value tells its place (below 256 pixels)."""
    return (first + np.arange(height * width * channels)).astype(np.uint8).reshape(height, width, channels)


def dihedral(patch):
    for turned in (patch, patch.swapaxes(0, 1)):
        for v in (1, -1):
            for h in (1, -1):
                yield turned[::v, ::h].tobytes()


def test_every_patch_is_a_crop_in_one_of_eight_orientations_and_all_occur():
    photos = [numbered(7, 9), numbered(6, 5, first=100), numbered(3, 30, first=150)]
    sampler = PatchSampler(together(*photos), 4, CPU)
    assert sampler.too_small == 1
    possible = {
        turned
        for photo in photos[:2]
        for i in range(photo.shape[0] - 3)
        for j in range(photo.shape[1] - 3)
        for turned in dihedral(photo[i : i + 4, j : j + 4])
    }
    drawn = (sampler.sample(6000, generator()) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert {patch.tobytes() for patch in drawn} == possible


def test_photographs_are_equally_likely_and_so_are_positions_in_each():
    big, small = np.zeros((19, 29, 1), np.uint8), np.full((10, 10, 1), 255, np.uint8)
    patches = PatchSampler(together(big, small), 10, CPU).sample(20000, generator())
    assert patches.mean() == pytest.approx(1 / 2, abs=0.02)
    big[0, 0], big[18, 28] = 255, 255  # each in one of the 200 positions, at a corner of the patch
    corners = PatchSampler(together(big), 10, CPU).sample(40000, generator()).amax(dim=(1, 2, 3))
    assert corners.mean() == pytest.approx(2 / 200, abs=0.002)


def test_colors_stay_together_and_lie_channels_last():
    photo = np.zeros((8, 8, 3), np.uint8)
    photo[..., 0], photo[..., 2] = 10, 30
    patches = PatchSampler(together(photo), 8, CPU).sample(5, generator())
    assert patches.shape == (5, 3, 8, 8)
    assert patches.dtype == torch.float32
    assert patches.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(patches[:, :, 0, 0] * 255, torch.tensor([[10.0, 0, 30]]).expand(5, 3))


def test_the_generator_alone_decides():
    sampler = PatchSampler(together(numbered(12, 12)), 4, CPU)
    torch.manual_seed(1)
    first = sampler.sample(8, generator(5))
    torch.manual_seed(2)
    assert torch.equal(first, sampler.sample(8, generator(5)))
    assert not torch.equal(first, sampler.sample(8, generator(6)))


def test_only_small_photographs_is_an_error():
    with pytest.raises(UsageError, match="smaller than a patch"):
        PatchSampler(together(numbered(3, 3)), 4, CPU)
