"""Photos -> one seeded split without shared pictures -> uint8 tensors, or a cache."""

import hashlib
import logging
import os

import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from utils.cli import UsageError, UserError
from utils.cli.arguments import did_you_mean
from utils.config import SPECIES
from utils.data.cache import IN_MEMORY, Source, cached_photos, subset
from utils.data.duplicates import keep_together, near_duplicates
from utils.data.photos import decode_all, find_photos
from utils.data.synthetic import draw_flowers

SYNTHETIC_PER_SPECIES = 800

log = logging.getLogger(__name__)


class FlowerImages(Dataset):
    """One side of the split, decoded: `images` uint8 (N, 3, H, W), `labels` int64 (N,).

    `images` are a tensor, or a PhotoMap of a set that is larger than memory. `metadata`
    describe the data for checkpoints: class names, source ("photos" or "drawn
    flowers"), number of images, the split's seed and its hash. With `hflip` each image
    of a batch is flipped at random; with `translate` the whole batch is shifted by at
    most so many pixels.
    """

    def __init__(self, images, labels, metadata, hflip=False, translate=0):
        self.images, self.labels, self.metadata = images, labels, metadata
        self.hflip, self.translate = hflip, translate
        self.classes = metadata["classes"]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index].float() / 255, self.labels[index]

    def __getitems__(self, indices):
        """Return a whole batch: float32 (B, 3, H, W) in [0, 1], int64 (B,)."""
        images, labels = self[torch.as_tensor(indices)]
        if self.hflip:
            images = random_hflip(images)
        if self.translate:
            images = random_translate(images, self.translate)
        return images, labels

    def all_images(self):
        """Return every image, not augmented: float32 (N, 3, H, W) in [0, 1]."""
        return self[:][0]

    def split(self, size):
        """Yield all images in batches, not augmented: float32 (B, 3, H, W)."""
        yield from (images.float() / 255 for images in self.images.split(size))

    def at_most(self, count):
        """Return this side, or `count` evenly spaced images where it has more."""
        if len(self) <= count:
            return self
        rows = torch.arange(count) * len(self) // count
        return FlowerImages(subset(self.images, rows), self.labels[rows], self.metadata)

    def fitting_memory(self):
        """Return this side, or evenly spaced images of it that fit into memory."""
        if isinstance(self.images, torch.Tensor):
            return self
        chosen = self.at_most(max(1, IN_MEMORY // self.images.shape[1:].numel()))
        if chosen is not self:
            text = "%d of %d photos are used, evenly spaced, which fit into memory"
            log.info(text, len(chosen), len(self))
        return chosen

    def channel_means(self):
        """Return the mean of each colour over all images: (3,), in [0, 1]."""
        # Sums of integers are exact; 64 images at a time bound the memory.
        sums = sum(part.sum(dim=(0, 2, 3)) for part in self.images.split(64))
        pixels = len(self) * self.images.shape[2:].numel()
        return (sums.double() / (255 * pixels)).float()

    def class_proportions(self):
        """Return the proportion of each class among the images, as floats."""
        counts = self.labels.bincount(minlength=len(self.classes))
        return (counts / len(self)).tolist()


# Augmentation ------------------------------------------------------------------------


def random_hflip(images):
    """Flip each of the images (B, 3, H, W) with probability 1/2."""
    flipped = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(flipped, images.flip(3), images)


def random_translate(images, pixels):
    """Shift a batch (B, 3, H, W) by up to `pixels`; the border is reflected."""
    height, width = images.shape[2:]
    padded = F.pad(images, [pixels] * 4, mode="reflect")
    top, left = (int(torch.randint(2 * pixels + 1, ())) for _ in range(2))
    return padded[:, :, top : top + height, left : left + width]


# The split ---------------------------------------------------------------------------


def split_indices(count, train_proportion=0.8, seed=0):
    """Return (train, valid) lists of indices, shuffled by the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator).tolist()
    cut = int(count * train_proportion)
    return order[:cut], order[cut:]


def split_samples(samples, classes, seed=0, duplicates=()):
    """Return (train, valid) index lists of [(path, label)], sorted by name.

    duplicates: groups (sets of indices) of near-duplicates, each kept on one side.
    """
    # The assignment's three species are split separately from the others, so that a
    # validation photo of three species never trains sixteen.
    separate = SPECIES if set(SPECIES) <= set(classes) else ()
    names = [classes[label] for _, label in samples]
    train, valid = [], []
    for group in (
        [i for i, name in enumerate(names) if name in separate],
        [i for i, name in enumerate(names) if name not in separate],
    ):
        chosen, rest = split_indices(len(group), seed=seed)
        sides = [group[i] for i in chosen], [group[i] for i in rest]
        sides = keep_together(duplicates, *sides, fixed_valid=valid)
        train, valid = train + sides[0], valid + sides[1]
    return train, valid


# Loading -----------------------------------------------------------------------------


def find_samples(root, synthetic_if_empty):
    """Return the classes and samples below root; none if flowers are to be drawn."""
    # Raises UsageError if root is not a folder.
    # Raises UserError if it holds fewer than two photos and no flowers may be drawn.
    # The class folders, if there are any.
    if root.is_dir():
        classes, samples = find_photos(root)
    elif root.exists() or not synthetic_if_empty:
        raise UsageError(f"{root} is not a folder; name one with --data")
    else:
        classes, samples = [], []
    # Too few photos: drawn flowers, or an error.
    if not samples and synthetic_if_empty:
        log.warning(
            "no photos in %s, using drawn flowers; "
            "get the photos: python -m tools.get_flowers",
            root,
        )
    elif not samples:
        folders = any(entry.is_dir() for entry in root.iterdir())
        what = "no photos in its class folders" if folders else "no class folder"
        raise UserError(
            f"{root} holds {what}; put each class into a folder: {root}/astilbe/"
        )
    elif len(samples) < 2:
        raise UserError(f"{root} holds 1 photo; need at least 2, to train and validate")
    return classes, samples


def load_photos(root, classes, samples, size, split_seed, strict, cache=None):
    """Return [training, validation] images of the photos that can be read."""
    # The readable photos, their positions among all of them, and near-duplicates.
    paths = [path for path, _ in samples]
    names = [path.relative_to(root).as_posix() for path in paths]
    if cache or 3 * size[0] * size[1] * len(paths) > IN_MEMORY:
        source = Source(root, paths, names, size)
        images, kept, groups = cached_photos(source, strict, cache)
    else:
        images, kept = decode_all(paths, *size, strict=strict)
        groups = near_duplicates(images)
    labels = torch.tensor([label for _, label in samples])[kept]
    # The split is made with all names, before the unreadable photos are removed from
    # it: they do not change the split of the others.
    duplicates = [set(kept[list(group)].tolist()) for group in groups]
    sides = split_samples(samples, classes, split_seed, duplicates)
    validation = [names[i] for i in sides[1]]  # hashed, to recognize the split
    metadata = describe_data("photos", classes, len(kept), split_seed, validation)
    row_of = {index: row for row, index in enumerate(kept.tolist())}
    rows = [[row_of[i] for i in side if i in row_of] for side in sides]
    return [FlowerImages(subset(images, r), labels[r], metadata) for r in rows]


def synthetic_flowers(size, split_seed):
    """Return [training, validation] images of drawn flowers."""
    images, labels = draw_flowers(SYNTHETIC_PER_SPECIES, *size)
    sides = split_indices(len(images), seed=split_seed)
    validation = [str(i) for i in sides[1]]
    classes, count = list(SPECIES), len(images)
    metadata = describe_data("drawn flowers", classes, count, split_seed, validation)
    return [FlowerImages(images[side], labels[side], metadata) for side in sides]


def select_species(sides, species):
    """Return both sides with the images of these species only, and new labels."""
    # Raises UsageError if there is no such species, or too few images of them.
    classes = sides[0].classes
    unknown = sorted(set(species) - set(classes))
    if unknown:
        raise UsageError(
            f"argument --species: no {unknown[0]!r} here; choose from "
            + ", ".join(classes)
            + did_you_mean(unknown[0], classes)
        )

    # No image changes sides, so that no choice of species trains on validation images
    # of another. Labels are numbered again from 0; -1 marks images to leave out.
    chosen = [label for label, name in enumerate(classes) if name in species]
    new_label = torch.full((len(classes),), -1)
    new_label[chosen] = torch.arange(len(chosen))
    kept = [new_label[side.labels] >= 0 for side in sides]
    if not all(rows.any() for rows in kept):
        raise UsageError("argument --species: too few images to train and validate")
    metadata = sides[0].metadata | {
        "classes": [classes[label] for label in chosen],
        "count": sum(int(rows.sum()) for rows in kept),
    }
    return [
        FlowerImages(subset(side.images, rows), new_label[side.labels[rows]], metadata)
        for side, rows in zip(sides, kept, strict=True)
    ]


def describe_data(source, classes, count, split_seed, validation_names):
    """Return the metadata of the data in a checkpoint."""
    split = hashlib.sha256(os.fsencode("\n".join(validation_names))).hexdigest()[:16]
    return {
        "source": source,
        "classes": classes,
        "count": count,
        "split_seed": split_seed,
        "split": split,
    }
