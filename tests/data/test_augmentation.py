"""Mirrored and moved training photos: only those."""

import torch

from tests.helpers.photos import load, numbered_photos
from utils.data.dataset import random_hflip, random_translate


def test_each_image_is_mirrored_or_not_by_a_coin():
    """About half of 1,000, never up and down, nothing in between."""
    torch.manual_seed(0)
    images = torch.rand(1000, 3, 4, 4)
    result = random_hflip(images)
    same = (result == images).flatten(1).all(dim=1)
    other = (result == images.flip(3)).flatten(1).all(dim=1)
    assert (same ^ other).all() and 450 < other.sum() < 550


def test_a_batch_is_moved_as_a_whole():
    """By 2 pixels at most, in every way."""
    torch.manual_seed(0)
    image = torch.zeros(1, 3, 24, 24)
    image[..., 12, 5] = 1
    seen = set()
    for _ in range(60):
        batch = random_translate(image.expand(8, 3, 24, 24), 2)
        assert batch.shape == (8, 3, 24, 24) and (batch.sum(dim=(1, 2, 3)) == 3).all()
        _, _, rows, columns = batch.nonzero(as_tuple=True)
        assert len(rows.unique()) == 1 == len(columns.unique())
        seen |= set(zip(rows.tolist(), columns.tolist(), strict=True))
    columns = {c for _, c in seen}
    assert {r for r, _ in seen} == set(range(10, 15))
    assert columns == set(range(3, 8))


def test_training_alone_is_changed(tmp_path):
    """Each epoch anew; validation photos stay as they are, and so do all by default."""
    root = numbered_photos(tmp_path, 30)
    for options, moves in (
        ({}, False),
        ({"hflip": True}, True),
        ({"translate": 1}, True),
    ):
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
