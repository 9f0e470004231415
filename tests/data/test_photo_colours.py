"""Readable photos have the right colours in every mode, size and format."""

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from tests.helpers.pictures import JPEG, MODES, PICTURE
from utils.data.photos import decode, decode_all


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
