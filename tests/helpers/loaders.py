"""Loaders of images that tell which they are."""

import torch
from torch.utils.data import DataLoader

from utils.data.dataset import FlowerImages


def loader(count, batch_size, shuffle=True):
    """Return a loader of `count` images, whose first values tell which they are."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(256, (count, 3, 8, 8), generator=generator).byte()
    images[:, 0, 0, 0] = torch.arange(count)
    data = FlowerImages(images, torch.arange(count) % 3, {"classes": [*"abc"]})
    return DataLoader(
        data,
        batch_size=batch_size,
        shuffle=shuffle,
        collate_fn=lambda batch: batch,
        generator=torch.Generator().manual_seed(1),
    )


def numbers(images):
    """Return which images of `loader` these are."""
    return (images[:, 0, 0, 0] * 255).round().int().tolist()
