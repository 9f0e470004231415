"""Find the photos below a folder and decode them safely."""

# A photo that cannot be read is left out and named; it never stops a run, exhausts
# memory or is replaced by another photo.

import logging
import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from utils.cli import UserError
from utils.config import PHOTO_EXTENSIONS
from utils.files import open_regular

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# Photos and pictures in other formats, which are counted in a warning.
UNREAD_EXTENSIONS = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".tif", ".tiff", ".gif")
UNREAD_EXTENSIONS += (".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".raw", ".jfif")
MAX_PIXELS = 50_000_000  # of one photo, before resizing
MAX_BAD = 0.1  # proportion of the photos that may be unreadable
MAX_NAMED = 10  # warnings about single photos or folders, before a count follows

log = logging.getLogger(__name__)


def is_wanted(name):
    """Return whether a file or folder is not one of a system or a tool."""
    return not name.startswith(".") and name != "__MACOSX"


def files_below(folder, extensions):
    """Yield the paths of files at any depth whose names end as one of these formats."""
    # Folder links are not followed. `ImageFolder` follows them, and does not end in a
    # loop of them.
    for place, folders, files in os.walk(folder):
        folders[:] = filter(is_wanted, folders)
        for name in filter(is_wanted, files):
            if name.lower().endswith(extensions):
                yield Path(place, name)


def photos_below(folder):
    """Return the sorted paths of photos at any depth."""
    return sorted(files_below(folder, PHOTO_EXTENSIONS), key=Path.as_posix)


def find_photos(root):
    """Return (class names, [(path, label)]), both sorted by name."""
    # Each sub-folder of `root` with a photo is a class. Raises UserError if photos are
    # in `root` itself.
    root = Path(root)
    names = sorted(e.name for e in os.scandir(root) if e.is_dir() and is_wanted(e.name))
    found = {name: photos_below(root / name) for name in names}
    classes = [name for name in names if found[name]]
    if not classes and photos_below(root):
        raise UserError(
            f"{root} holds photos but no class folder; "
            f"put each class into its own folder, such as {root / 'astilbe' / 'x.jpg'}"
        )
    warn_of_layout(root, classes, found)
    # Empty folders are likely mistakes.
    if classes:
        empty = [name for name in names if not found[name]]
        for name in empty[:MAX_NAMED]:
            log.warning("%s holds no photo and is ignored", root / name)
        if len(empty) > MAX_NAMED:
            log.warning("%d folders hold no photo in all", len(empty))
    samples = [(p, label) for label, name in enumerate(classes) for p in found[name]]
    return classes, samples


def warn_of_layout(root, classes, found):
    """Warn of a folder one level too high, and of photos in formats not read."""
    # found: class name -> paths of its photos.
    if len(classes) == 1:
        inner = {path.relative_to(root).parts[1:-1] for path in found[classes[0]]}
        if () not in inner and len({parts[0] for parts in inner}) > 1:
            log.warning(
                "%s holds one class, whose photos are in sub-folders; if those are the "
                "classes, use --data %s",
                root,
                root / classes[0],
            )
    unread = Counter(p.suffix.lower() for p in files_below(root, UNREAD_EXTENSIONS))
    if unread:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(unread.items()))
        log.warning("%s holds photos in formats that are not read: %s", root, kinds)


def decode(path, width, height):
    """Return one photo as a uint8 tensor (3, height, width), resized without a crop."""
    # Raises an exception of any type, by the content of the file.
    with open_regular(path) as file:
        image = Image.open(file, formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"too large: {image.width} x {image.height} pixels")
        image.load()
        small = to_rgb(image).resize((width, height), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def resized(images, size):
    """Resize images (N, 3, H, W) in [0, 1] as `decode` does, in 8 bits."""
    levels = (images * 255).round().byte()
    small = F.interpolate(levels, (size, size), mode="bilinear", antialias=True)
    return small.float() / 255


def decode_one(path, width, height):
    """Return a requested photo, as `decode` does."""
    # Raises UserError if it cannot be read.
    try:
        return decode(path, width, height)
    except Exception as error:
        raise UserError(
            f"{path} cannot be read: {reason(error)}; name another photo"
        ) from None


def to_rgb(image):
    """Convert any mode to RGB; 16-bit greys are scaled first, or they would clip."""
    if image.mode.startswith("I"):
        grey = np.asarray(image, dtype=np.float64) / 257  # 65535 -> 255
        image = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def decode_all(paths, width, height, strict=False):
    """Return (images uint8 (N, 3, height, width), indices (N,) of readable paths)."""
    # Raises UserError if more than a tenth, or with `strict` any, cannot be read.
    results = decode_each(paths, width, height)
    # Report the unreadable photos, return the others.
    bad = [(p, why) for p, (_, why) in zip(paths, results, strict=True) if why]
    if bad:
        leave_out(bad, len(paths), strict)
    images = [image for image, _ in results if image is not None]
    indices = [i for i, (image, _) in enumerate(results) if image is not None]
    return torch.stack(images), torch.tensor(indices)


def decode_each(paths, width, height):
    """Decode in parallel -> [(image, None) or (None, reason), ...]."""

    def attempt(path):
        try:
            return decode(path, width, height), None
        except Exception as error:
            return None, reason(error)

    # Pillow warns of decompression bombs: an error. Other warnings are ignored.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return list(pool.map(attempt, paths))


def reason(error):
    """Return the reason in words why a photo could not be read."""
    if isinstance(
        error, (Image.DecompressionBombError, Image.DecompressionBombWarning)
    ):
        return "too large"
    if isinstance(error, Image.UnidentifiedImageError):
        return "damaged, or a format not allowed (JPEG, PNG, WEBP and BMP are)"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def leave_out(bad, total, strict):
    """Log the unreadable photos; raise a UserError if they are too many."""
    for path, why in bad[:MAX_NAMED]:
        log.warning("left out %s: %s", path, why)
    log.warning("left out %d of %d photos that cannot be read", len(bad), total)
    if strict:
        path, why = bad[0]
        raise UserError(f"{path} cannot be read: {why}; repair or remove it")
    if len(bad) > MAX_BAD * total:
        percent = f"{100 * len(bad) / total:.0f} % unreadable"
        raise UserError(
            f"the data looks damaged: {percent} ({len(bad)} of {total}), such as "
            f"{bad[0][0]}; fetch the photos again or remove the files named above"
        )
