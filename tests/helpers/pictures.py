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


GREY = (100 + 3 * ROWS + COLUMNS).astype(np.uint8)


PALETTED = PICTURE.quantize(64)


COLOURS = np.array(PALETTED.getpalette()).reshape(-1, 3)[np.asarray(PALETTED)]


CMYK = Image.fromarray(np.dstack([255 - RGB, GREY // 2]), "CMYK")


MID_GREY = Image.fromarray(np.full((32, 40), 32768, np.uint16))  # of 65535


RED = Image.new("RGB", (40, 32), "red")


ANIMATED = {"save_all": True, "append_images": [RED]}  # the second frame


MODES = {  # file, colours, mean absolute error allowed
    "L": (encoded(Image.fromarray(GREY), "PNG"), GREY, 0),
    "LA": (encoded(Image.fromarray(np.dstack([GREY, GREY // 9])), "PNG"), GREY, 0),
    "P": (encoded(PALETTED, "PNG"), COLOURS, 0),
    "P, one colour clear": (encoded(PALETTED, "PNG", transparency=3), COLOURS, 0),
    "P, clear": (encoded(PALETTED, "PNG", transparency=bytes(range(64))), COLOURS, 0),
    "1": (encoded(Image.fromarray(GREY > 150), "PNG"), 255 * (GREY > 150), 0),
    "RGBA": (encoded(Image.fromarray(np.dstack([RGB, GREY])), "PNG"), RGB, 0),
    "RGB, BMP": (encoded(PICTURE, "BMP"), RGB, 0),
    "CMYK": (
        encoded(CMYK, "JPEG", quality=98, subsampling=0),
        RGB * (1 - (GREY // 2)[..., None] / 255),
        3,
    ),
    "YCbCr": (encoded(PICTURE, "JPEG", quality=98), RGB, 3),
    "progressive": (encoded(PICTURE, "JPEG", quality=98, progressive=True), RGB, 3),
    "I;16": (encoded(Image.fromarray(GREY * np.uint16(257)), "PNG"), GREY, 0),
    "I;16, mid grey": (encoded(MID_GREY, "PNG"), np.full((32, 40), 128), 0),
    "animated WebP": (encoded(PICTURE, "WEBP", lossless=True, **ANIMATED), RGB, 0),
    "animated PNG": (encoded(PICTURE, "PNG", **ANIMATED), RGB, 0),
}
