"""tools/overlaps.py: pictures of test sets that are among photographs for training."""

import numpy as np
import pytest
from conftest import tool_module
from PIL import Image

overlaps = tool_module("overlaps")


@pytest.fixture
def folders(tmp_path, photo):
    """Of two photographs, one of which the tests get a part of."""
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    Image.fromarray(photo[:, :200]).save(tmp_path / "train" / "left.png")
    Image.fromarray(photo[:, 200:]).save(tmp_path / "train" / "right.png")
    return tmp_path / "train", tmp_path / "test"


@pytest.mark.parametrize("reduced", [1, 2])
def test_a_part_of_a_photograph_is_found_on_another_grid_in_gray_and_smaller(folders, photo, reduced):
    train, test = folders
    part = Image.fromarray(photo[21:259, 207:443]).convert("L").reduce(reduced)
    part.save(test / "part.png")
    ((path, photograph, scale, correlation),) = overlaps.overlaps(train, test)
    assert (path.name, photograph.name, scale) == ("part.png", "right.png", reduced)
    assert correlation > 0.97


def test_other_pictures_and_flat_ones_are_not(folders, photo):
    train, test = folders
    for k, picture in enumerate((photo[::-1], np.full((200, 200, 3), 90, np.uint8), photo[:50, 200:])):
        Image.fromarray(np.ascontiguousarray(picture)).save(test / f"{k}.png")
    assert not list(overlaps.overlaps(train, test))
