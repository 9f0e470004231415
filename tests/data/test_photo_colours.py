"""Readable photos have the right colours in every mode, size and format."""

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from tests.helpers.pictures import COLUMNS, JPEG, PICTURE, RGB, ROWS, encoded
from utils.data.photos import decode, decode_all

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


@pytest.mark.parametrize("content, colours, allowed", MODES.values(), ids=MODES)
def test_every_mode_gives_the_right_colours(tmp_path, content, colours, allowed):
    """P15, I13, I15, I16, I17: under any extension, with warnings as errors."""
    (tmp_path / "x.jpg").write_bytes(content)
    images, indices = decode_all([tmp_path / "x.jpg"], 40, 32)
    expected = colours if colours.ndim == 3 else colours[..., None].repeat(3, 2)
    error = images[0].permute(1, 2, 0).numpy() - expected.astype(float)
    assert images.dtype == torch.uint8 and indices.tolist() == [0]
    assert np.abs(error).mean() <= allowed


@pytest.mark.parametrize("width, height", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes_keep_their_colour(tmp_path, width, height):
    """I20"""
    Image.new("RGB", (width, height), (10, 20, 30)).save(tmp_path / "x.png")
    image = decode(tmp_path / "x.png", 24, 16)
    assert image.shape == (3, 16, 24)
    assert image.flatten(1).unique(dim=1).flatten().tolist() == [10, 20, 30]


@pytest.mark.parametrize("tag, value", [(0x112, 6), (0x11A, IFDRational(1, 0))])
def test_exif_is_ignored(tmp_path, tag, value):
    """I21: orientation 6, and a resolution of 1/0."""
    exif = Image.Exif()
    exif[tag] = value
    (tmp_path / "plain.jpg").write_bytes(JPEG)
    PICTURE.save(tmp_path / "exif.jpg", quality=95, exif=exif)
    plain, other = (decode(tmp_path / f"{n}.jpg", 24, 24) for n in ("plain", "exif"))
    assert (tmp_path / "exif.jpg").stat().st_size > len(JPEG)
    assert torch.equal(plain, other)
