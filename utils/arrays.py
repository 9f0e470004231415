"""Any number of images -> one .npy file, a batch at a time."""

import io

import numpy as np

from utils.checkpoint import prepare_target, replace_file
from utils.cli import UserError


def save_images(path, batches, shape):
    """Save batches of images (B, 3, H, W) in [0, 1] as uint8, whole or not at all.

    shape: of the array in the file, (N, H, W, 3). Only one batch is held in memory.

    Raises:
        ValueError: if the batches hold another number of images.
        UserError: if the file cannot be written.
    """
    path = prepare_target(path)
    try:
        replace_file(path, chunks(batches, shape))
    except OSError as error:
        raise UserError(f"cannot save {path}: {error.strerror}") from None


def chunks(batches, shape):
    """Yield the bytes of the .npy file: its header, and the pixels of each batch."""
    header = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(header, facts)
    yield header.getvalue()
    count = 0
    for images in batches:
        pixels = (images.detach().cpu().clamp(0, 1) * 255).round().byte()
        yield pixels.permute(0, 2, 3, 1).numpy().tobytes()  # (B, H, W, 3)
        count += len(images)
    if count != shape[0]:
        raise ValueError(f"{shape[0]} images were promised, got {count}")
