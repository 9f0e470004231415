"""Flipped and shifted training images."""

import torch
from torchvision.transforms.v2 import RandomCrop

from tests.helpers.photos import load, numbered_photos
from utils.data.dataset import random_hflip, random_translate


def test_half_of_the_images_are_flipped_horizontally():
    torch.manual_seed(0)
    images = torch.rand(1000, 3, 4, 4)
    result = random_hflip(images)
    same = (result == images).flatten(1).all(dim=1)
    flipped = (result == images.flip(3)).flatten(1).all(dim=1)
    assert (same ^ flipped).all() and 450 < flipped.sum() < 550


def test_a_batch_is_shifted_as_a_whole():
    """By -2 to 2 pixels along each axis; every shift occurs."""
    torch.manual_seed(0)
    image = torch.zeros(1, 3, 24, 24)
    image[..., 12, 5] = 1
    seen = set()
    for _ in range(60):
        batch = random_translate(image.expand(8, 3, 24, 24), 2)
        assert batch.shape == (8, 3, 24, 24) and (batch.sum(dim=(1, 2, 3)) == 3).all()
        _, _, rows, columns = batch.nonzero(as_tuple=True)
        assert len(rows.unique()) == 1 == len(columns.unique())
        seen.add((rows[0].item(), columns[0].item()))
    assert {row for row, _ in seen} == set(range(10, 15))
    assert {column for _, column in seen} == set(range(3, 8))


def test_a_shift_is_that_of_torchvision():
    """Of the same random numbers, borders included."""
    images = torch.rand(4, 3, 8, 12)
    crop = RandomCrop((8, 12), padding=3, padding_mode="reflect")
    for seed in range(20):
        torch.manual_seed(seed)
        expected = crop(images)
        torch.manual_seed(seed)
        assert torch.equal(random_translate(images, 3), expected)


def test_only_training_images_are_augmented(tmp_path):
    """And none by default; `all_images` are never augmented."""
    root = numbered_photos(tmp_path, 30)
    for options in ({}, {"hflip": True}, {"translate": 1}):
        loaders = load(root, batch_size=30, **options)
        for loader, augmented in zip(loaders, (bool(options), False), strict=True):
            side = loader.dataset
            side.images = torch.randint(256, side.images.shape, dtype=torch.uint8)
            plain = side.all_images()
            batches = [images for _ in range(5) for images, _ in loader]
            assert sum(map(len, batches)) == 5 * len(side)
            distinct = torch.cat([plain, *batches]).flatten(1).unique(dim=0)
            assert (len(distinct) > len(plain)) == augmented
