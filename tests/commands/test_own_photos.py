"""The commands of docs/own_photos.md, on photos of two kinds that are no flowers."""

import importlib
import re
import shlex

import numpy as np
import pytest

from tests.helpers.commands import command
from tests.helpers.project import PROJECT, write_photos
from utils.checkpoint import load_checkpoint
from utils.data.photos import FORMATS, MAX_BAD, MAX_PIXELS, UNREAD_EXTENSIONS

TEXT = (PROJECT / "docs" / "own_photos.md").read_text("utf-8")
COMMANDS = re.findall(r"\| `python ([^`]+)` \|", TEXT)
SMALL = {  # what makes them short
    "--budget 10m": "--epochs 1 --image-size 8 --channels 16,32",
    "train_script.py": "train_script.py --epochs 1 --image-size 8",
    "--count 20": "--count 3",
}


@pytest.fixture
def kinds(tmp_path):
    """Two kinds of photos, in a folder whose name has a space."""
    drawn, folder = write_photos(tmp_path / "drawn", 10), tmp_path / "my photos"
    folder.mkdir()
    (drawn / "astilbe").rename(folder / "teapots")
    (drawn / "calendula").rename(folder / "kittens")
    (folder / "teapots" / "000.png").rename(folder / "teapots" / "1.jpg")
    return folder


def run(line):
    """Run a command line without `python` in this process -> exit code."""
    script, *args = shlex.split(line)
    if script != "-m":
        return command(script, *args).code
    tool, *args = args
    name = tool if tool != "tools.visualize" else f"{tool}.__main__"
    importlib.import_module(name).main(args)
    return 0


@pytest.mark.slow
def test_every_command_works(kinds, tmp_path):
    """In the order of the page; weights and pictures are below --out."""
    assert len(COMMANDS) == 9
    for line in COMMANDS:
        for long, short in SMALL.items():
            line = line.replace(long, short)
        line = line.replace("my_photos", shlex.quote(str(kinds)))
        line = re.sub(r"(?<=[ =])mine(?=[ /]|$)", str(tmp_path / "mine"), line)
        assert run(line) == 0, line
    _, metadata = load_checkpoint(tmp_path / "mine" / "models" / "Best_diffusion.pkl")
    assert metadata["data"]["classes"] == ["kittens", "teapots"]
    samples = np.load(tmp_path / "mine" / "samples.npy")
    assert samples.shape == (10, 8, 8, 3) and samples.dtype == np.uint8
    pictures = {path.name for path in (tmp_path / "mine" / "vis").iterdir()}
    assert {"random_images_diffusion_kittens.png", "init_diffusion.png"} <= pictures
    assert {
        "denoise_diffusion.gif",
        "valid_VAE.png",
        "random_images_VAE.png",
    } <= pictures


def test_the_page_names_what_is_read():
    """The formats of the code, and its limits."""
    words = TEXT.upper()
    for kind in (*FORMATS, "HEIC", "AVIF", "TIFF", "GIF"):
        assert kind in words
    assert not {".heic", ".avif", ".tiff", ".gif"} - {*UNREAD_EXTENSIONS}
    assert f"at most {MAX_PIXELS // 10**6} megapixels" in TEXT and MAX_BAD == 1 / 10
