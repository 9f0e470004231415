"""What the tests share: folders of photos, and commands run as processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from utils.data.synthetic import SPECIES, draw_flowers

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def exact_products():
    """Undo what a command in this process chose for all products of float32."""
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def photo_folder(tmp_path):
    """Ten drawn photos of each kind, 40 x 32, as PNG files: thirty good ones."""
    return write_photos(tmp_path / "photos", 10)


def write_photos(root, per_species):
    """Save drawn flowers as <root>/<kind>/<number>.png and return root."""
    images, labels = draw_flowers(per_species, 40, 32)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / SPECIES[label] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return root


@pytest.fixture(scope="session")
def real_photos(tmp_path_factory):
    """The three kinds of real photos, imported once; skips where there are none."""
    from tools import get_flowers

    archive = Path(os.environ.get("FLOWERS_PHOTOS", "")) / "flowers-3.zip"
    if not archive.is_file():
        pytest.skip("needs FLOWERS_PHOTOS, a folder that holds flowers-3.zip")
    root = tmp_path_factory.mktemp("real") / "flowers"
    get_flowers.main(["--from", str(archive), "--to", str(root)])
    return root


def run_command(script, *args, timeout=300, **options):
    """Run one of the project's scripts as a user does -> CompletedProcess, in text.

    `script` is a file name, or a module name such as tools.get_flowers.
    """
    start = [PROJECT / script] if script.endswith(".py") else ["-m", script]
    if not script.endswith(".py"):
        options.setdefault("cwd", PROJECT)
    return subprocess.run(
        [sys.executable, *map(str, start), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )
