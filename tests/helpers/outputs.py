"""Pictures and weights that commands wrote."""

import numpy as np
import torch
from PIL import Image

from tests.helpers.training import rows_of
from utils.checkpoint import load_checkpoint
from utils.figures import MARGIN, TITLE

HOW_TO_GET_THEM = "python -m tools.get_flowers"


def without_seconds(path):
    return [{**row, "seconds": None} for row in rows_of(path)]


def same_weights(one, other):
    first, second = load_checkpoint(one)[0], load_checkpoint(other)[0]
    assert list(first) == list(second)
    return all(torch.equal(first[key], second[key]) for key in first)


def pixels(path):
    """An image file as numbers -> (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def small_picture(path, factor, left=0):
    """The grid below a picture's title, each block of factor x factor one pixel.

    left: small pixels of words left of it.
    """
    grid = pixels(path)[MARGIN + TITLE : -MARGIN, MARGIN + factor * left : -MARGIN]
    assert grid.shape[0] % factor == 0 == grid.shape[1] % factor
    small = grid[::factor, ::factor]
    assert np.array_equal(small.repeat(factor, 0).repeat(factor, 1), grid)
    return small
