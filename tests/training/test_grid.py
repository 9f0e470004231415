"""The grid of images in pictures."""

import pytest
import torch
from torchvision.utils import make_grid

from utils.figures import GAP, grid


@pytest.mark.parametrize("count, columns", [(6, 3), (7, 3), (2, 5), (4, 1)])
def test_a_grid_is_that_of_torchvision(count, columns):
    """Rows that are not full, fewer images than columns; values are clipped."""
    images = 3 * torch.rand(count, 3, 5, 4) - 1
    shown = {"nrow": min(columns, count), "padding": GAP, "pad_value": 1.0}
    expected = make_grid(images.clamp(0, 1), **shown).permute(1, 2, 0)
    assert torch.equal(torch.from_numpy(grid(images, columns)), expected)


def test_a_single_image_has_a_border_too():
    picture = grid(torch.zeros(1, 3, 5, 4), 10, factor=2)
    assert picture.shape == (2 * (5 + 2 * GAP), 2 * (4 + 2 * GAP), 3)
    assert picture[: 2 * GAP].min() == 1 and picture[2 * GAP, 2 * GAP].max() == 0
