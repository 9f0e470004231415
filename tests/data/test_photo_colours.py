"""Good photos: the right colours from every mode, size and format."""

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from tests.helpers.pictures import JPEG, PICTURE, RGB, encoded
from utils.data.photos import decode, decode_all

ROWS, COLUMNS = np.mgrid[0:32, 0:40]
GREY = (100 + 3 * ROWS + COLUMNS).astype(np.uint8)
PALETTED = PICTURE.quantize(64)
COLOURS = np.array(PALETTED.getpalette()).reshape(-1, 3)[np.asarray(PALETTED)]
CMYK = np.dstack([255 - RGB, GREY // 2])
MODES = {  # bytes, the right colours, error allowed
    "L": (encoded(Image.fromarray(GREY), "PNG"), GREY, 0),
    "LA": (encoded(Image.fromarray(np.dstack([GREY, GREY // 9])), "PNG"), GREY, 0),
    "P": (encoded(PALETTED, "PNG"), COLOURS, 0),
    "P, one colour clear": (encoded(PALETTED, "PNG", transparency=3), COLOURS, 0),
    "P, clear": (encoded(PALETTED, "PNG", transparency=bytes(range(64))), COLOURS, 0),
    "1": (encoded(Image.fromarray(GREY > 150), "PNG"), 255 * (GREY > 150), 0),
    "RGBA": (encoded(Image.fromarray(np.dstack([RGB, GREY])), "PNG"), RGB, 0),
    "RGB, BMP": (encoded(PICTURE, "BMP"), RGB, 0),
    "CMYK": (
        encoded(Image.fromarray(CMYK, "CMYK"), "JPEG", quality=98, subsampling=0),
        RGB * (1 - (GREY // 2)[..., None] / 255),
        3,
    ),
    "YCbCr": (encoded(PICTURE, "JPEG", quality=98), RGB, 3),
    "progressive": (encoded(PICTURE, "JPEG", quality=98, progressive=True), RGB, 3),
    "I;16": (encoded(Image.fromarray(GREY * np.uint16(257)), "PNG"), GREY, 0),
    "animated WebP": (
        encoded(
            PICTURE,
            "WEBP",
            save_all=True,
            lossless=True,
            append_images=[Image.new("RGB", (40, 32), "red")],
        ),
        RGB,
        0,
    ),
    "animated PNG": (
        encoded(
            PICTURE,
            "PNG",
            save_all=True,
            append_images=[Image.new("RGB", (40, 32), "red")],
        ),
        RGB,
        0,
    ),
}


@pytest.mark.parametrize("content, colours, allowed", MODES.values(), ids=MODES)
def test_every_mode_gives_the_right_colours(tmp_path, content, colours, allowed):
    """P15, I13, I15, I17: whatever the file is called, and under -W error, too."""
    (tmp_path / "x.jpg").write_bytes(content)
    images, indices = decode_all([tmp_path / "x.jpg"], 40, 32)
    wanted = colours if colours.ndim == 3 else colours[..., None].repeat(3, 2)
    error = images[0].permute(1, 2, 0).numpy() - wanted.astype(float)
    assert images.dtype == torch.uint8 and indices.tolist() == [0]
    assert np.abs(error).mean() <= allowed


def test_sixteen_bit_mid_grey_is_mid_grey(tmp_path):
    """I16: 32768 of 65535, and not white."""
    Image.fromarray(np.full((9, 9), 32768, np.uint16)).save(tmp_path / "x.png")
    assert decode(tmp_path / "x.png", 9, 9).unique().tolist() == [128]


@pytest.mark.parametrize("width, height", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes_are_used(tmp_path, width, height):
    """I20: one colour stays that colour."""
    Image.new("RGB", (width, height), (10, 20, 30)).save(tmp_path / "x.png")
    image = decode(tmp_path / "x.png", 24, 16)
    assert image.shape == (3, 16, 24)
    assert image.flatten(1).unique(dim=1).flatten().tolist() == [10, 20, 30]


@pytest.mark.parametrize("tag, value", [(0x112, 6), (0x11A, IFDRational(1, 0))])
def test_exif_changes_nothing(tmp_path, tag, value):
    """I21: neither orientation nor a resolution of 1/0."""
    exif = Image.Exif()
    exif[tag] = value
    (tmp_path / "plain.jpg").write_bytes(JPEG)
    PICTURE.save(tmp_path / "exif.jpg", quality=95, exif=exif)
    plain, other = (decode(tmp_path / f"{n}.jpg", 24, 24) for n in ("plain", "exif"))
    assert (tmp_path / "exif.jpg").stat().st_size > len(JPEG)
    assert torch.equal(plain, other)
