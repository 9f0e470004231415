"""One known picture in many encodings."""

import io

import numpy as np
from PIL import Image

ROWS, COLUMNS = np.mgrid[0:32, 0:40]
RGB = np.stack([6 * COLUMNS, 7 * ROWS, 3 * (ROWS + COLUMNS)], -1).astype(np.uint8)
PICTURE = Image.fromarray(RGB)


def encoded(image, kind, **options):
    """Return the bytes of the image in a format of Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


JPEG = encoded(PICTURE, "JPEG", quality=95)
