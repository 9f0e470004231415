"""Any number of images -> one .npy file, a batch at a time."""

import io

import numpy as np

from utils.checkpoint import prepare_target, replace_file
from utils.cli import UserError


def save_images(path, batches, shape):
    """Save batches of images (B, 3, H, W) in [0, 1] as uint8, whole or not at all.

    shape: of the array in the file, (N, H, W, 3). A batch is written before the
    next but one is made.

    Raises:
        ValueError: if the batches hold another number or size of images.
        UserError: if the file cannot be written.
    """
    path = prepare_target(path)
    try:
        replace_file(path, chunks(batches, shape))
    except OSError as error:
        raise UserError(
            f"cannot save {path}: {error.strerror}; name another place with --save"
        ) from None


def chunks(batches, shape):
    """Yield the bytes of the .npy file: its header, and the pixels of each batch."""
    header = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(header, facts)
    yield header.getvalue()
    count = 0
    for images in batches:
        pixels = (images.detach().cpu().float().clamp(0, 1) * 255).round().byte()
        pixels = pixels.permute(0, 2, 3, 1).numpy()  # (B, H, W, 3)
        if pixels.shape[1:] != tuple(shape[1:]):
            raise ValueError(f"images are {pixels.shape[1:]}, promised {shape[1:]}")
        yield pixels.tobytes()
        count += len(images)
    if count != shape[0]:
        raise ValueError(f"{shape[0]} images were promised, got {count}")
