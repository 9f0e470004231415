"""The starter kit's data loaders and pictures of images."""

from pathlib import Path

import torch
from torch.utils.data import DataLoader

from utils import figures
from utils.cli import PROJECT
from utils.data.dataset import (
    find_samples,
    load_photos,
    select_species,
    synthetic_flowers,
)


def create_flower_dataloaders(
    batch_size,
    root,
    IMG_WIDTH,
    IMG_HEIGHT,
    num_worker=0,  # of the starter kit, ignored
    seed=0,
    split_seed=0,
    synthetic_if_empty=False,
    strict=False,
    hflip=False,
    translate=0,
    species=None,  # names, or all
    cache=None,  # folder, or the user's for photos larger than memory
):
    """Return (training, validation) loaders of (images, labels) batches.

    Images are float32 (B, 3, IMG_HEIGHT, IMG_WIDTH) in [0, 1], resized without a crop;
    labels are int64 (B,). The split depends on the file names and `split_seed`, and
    keeps near-duplicates on one side; `seed` shuffles the training batches, `hflip`
    flips half of their images and `translate` shifts them by up to so many pixels.
    `species` are the names of the class folders to use, by default all. Every photo is
    decoded once, into memory, or into a file of the folder `cache` that later calls use
    again (docs/scale.md); `num_worker` is accepted and has no effect.

    Raises:
        UsageError: if `root` is no folder, or lacks one of the `species`.
        UserError: if it holds no photos (unless `synthetic_if_empty`), or damaged ones.
    """
    # Decode the photos, or draw flowers, and split them.
    root, size = Path(root), (IMG_WIDTH, IMG_HEIGHT)
    classes, samples = find_samples(root, synthetic_if_empty)
    if samples:
        sides = load_photos(root, classes, samples, size, split_seed, strict, cache)
    else:
        sides = synthetic_flowers(size, split_seed)
    if species:
        sides = select_species(sides, species)
    # Only training photos are augmented.
    sides[0].hflip, sides[0].translate = hflip, translate
    return loaders_of(sides, batch_size, seed)


def loaders_of(sides, batch_size, seed):
    """Return (training, validation) loaders of two FlowerImages."""
    # Each loader has its own generator: the global random state stays unchanged.
    return tuple(
        DataLoader(
            side,
            batch_size=batch_size,
            shuffle=shuffle,
            collate_fn=lambda batch: batch,  # of FlowerImages.__getitems__
            generator=torch.Generator().manual_seed(seed),
        )
        for side, shuffle in zip(sides, (True, False), strict=True)
    )


def open_flowers(data, batch_size, size, **options):
    """Return a command's loaders: of `data`, by default ./flowers or drawn flowers."""
    # size: (width, height) in pixels; options: of `create_flower_dataloaders`.
    # Photos that the user named are never replaced by drawn flowers.
    return create_flower_dataloaders(
        batch_size,
        data or PROJECT / "flowers",
        *size,
        synthetic_if_empty=data is None,
        **options,
    )


def show_images(images, nmax=64, save_path=None):
    """Show up to `nmax` images (B, 3, H, W) in [0, 1]; or save them, 8 in a row."""
    # With a path: no window, which would need a display and block the program.
    if save_path:
        figures.save_grid(images[:nmax], save_path, columns=8)
        return

    # A window, as in the starter kit. No command calls this.
    from matplotlib import pyplot

    pyplot.imshow(figures.grid(images[:nmax], columns=8), interpolation="nearest")
    pyplot.axis("off")
    pyplot.show()


def show_recover_results(images, recover_images, save_path, title=""):
    """Save originals (B, 3, H, W) in [0, 1] above their reconstructions."""
    both = torch.cat([images.cpu(), recover_images.detach().cpu()])
    picture = figures.labelled(both, len(images), ["original", "reconstruction"])
    figures.save_stack([title, picture] if title else [picture], save_path)
