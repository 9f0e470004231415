"""Mirrored training photos: only those, half of them, whole."""

import torch

from tests.test_data import load, numbered_photos
from utils.data_processor import mirrored


def test_each_image_is_mirrored_or_not_by_a_coin():
    """About half of 1,000, never up and down, nothing in between."""
    torch.manual_seed(0)
    images = torch.rand(1000, 3, 4, 4)
    result = mirrored(images)
    same = (result == images).flatten(1).all(dim=1)
    other = (result == images.flip(3)).flatten(1).all(dim=1)
    assert (same ^ other).all() and 450 < other.sum() < 550


def test_training_alone_is_mirrored(tmp_path):
    """Each epoch anew; validation photos stay as they are, and so do all by default."""
    root = numbered_photos(tmp_path, 30)
    for options, moves in (({}, False), ({"flips": True}, True)):
        loaders = load(root, batch_size=30, **options)
        for loader, may_move in zip(loaders, (moves, False), strict=True):
            side = loader.dataset
            side.images = torch.randint(256, side.images.shape, dtype=torch.uint8)
            plain = side.all_images()
            changed = 0
            for _ in range(5):
                for images, labels in loader:
                    found = [
                        (plain == image).flatten(1).all(dim=1).any() for image in images
                    ]
                    assert len(labels) == len(side)
                    changed += len(found) - sum(found)
            assert (changed > 0) == may_move
