"""Caches: their files, caches of drawn photos without photos, and memory."""

import re
import zlib
from pathlib import Path

import torch

from utils.config import SPECIES
from utils.data.cache import map_photos, npy_header, subset
from utils.data.dataset import FlowerImages, describe_data, split_indices
from utils.data.synthetic import draw_flowers
from utils.data_processor import loaders_of
from utils.files import replace_file

PER_SPECIES = 100  # photos that are drawn; the others are those in other colours


def same(loaders, others):
    """Return whether two pairs of loaders give the same batches, for two epochs."""
    pairs = list(zip(loaders, others, strict=True))
    if any(a.dataset.metadata != b.dataset.metadata for a, b in pairs):
        return False
    epochs = []
    for side in (loaders, others):
        torch.manual_seed(0)
        for loader in side:  # which may have given batches before
            loader.generator.manual_seed(0)
        epochs.append([batch for _ in range(2) for loader in side for batch in loader])
    return len(epochs[0]) == len(epochs[1]) and all(
        a.equal(b) and x.equal(y) for (a, x), (b, y) in zip(*epochs, strict=True)
    )


def rebuilt(caplog):
    """Return the log messages about caches that are not used."""
    return [message for message in caplog.messages if "built again" in message]


def array_of(folder):
    """Return the only array of a cache."""
    (path,) = folder.glob("*.npy")
    return path


def drawn_parts(count, size):
    """Yield `count` different photos: uint8 (B, 3, size, size), B <= 300."""
    images = draw_flowers(PER_SPECIES, size, size)[0]
    for number, start in enumerate(range(0, count, len(images))):
        # Sums of bytes wrap around; (1, 3, 1, 1).
        shift = torch.tensor([number, number >> 8, 0]).byte().view(1, 3, 1, 1)
        yield images[: count - start] + shift


def drawn_map(path, count, size=24):
    """Write a cache of `count` drawn photos -> their PhotoMap."""
    shape, found = (count, 3, size, size), 0

    def chunks():
        nonlocal found
        yield npy_header(shape)
        for part in drawn_parts(count, size):
            content = part.numpy().tobytes()
            found = zlib.crc32(content, found)
            yield content

    replace_file(path, chunks())
    return map_photos(path, shape, found)


def drawn_loaders(images, batch_size=64, seed=0):
    """Return (training, validation) loaders of images: a tensor or a PhotoMap."""
    labels = torch.arange(len(images)) // PER_SPECIES % 3
    sides = split_indices(len(images))
    metadata = describe_data("photos", list(SPECIES), len(images), 0, [])
    rows = [torch.tensor(side) for side in sides]
    return loaders_of(
        [FlowerImages(subset(images, r), labels[r], metadata) for r in rows],
        batch_size,
        seed,
    )


def resident():
    """Return the bytes of this process that are in memory."""
    return kilobytes(Path("/proc/self/status").read_text("ascii"), "VmRSS")


def mapped(path):
    """Return the bytes of a mapped file that are in the memory of this process."""
    maps = Path("/proc/self/smaps").read_text("utf-8").split(f"{path}\n")[1:]
    return sum(kilobytes(text, "Rss") for text in maps)


def kilobytes(text, name):
    """Return the first size of that name, in bytes."""
    return 1024 * int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1])
