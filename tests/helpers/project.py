"""The project as a user runs it."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

from utils.config import SPECIES
from utils.data.synthetic import draw_flowers

PROJECT = Path(__file__).resolve().parents[2]
GUARD = 900  # seconds; only a process that hangs takes longer, however busy the machine


def write_photos(root, per_species):
    """Save drawn flowers as <root>/<kind>/<number>.png and return root."""
    images, labels = draw_flowers(per_species, 40, 32)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / SPECIES[label] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return root


def python(*args, cwd=PROJECT, timeout=GUARD, **options):
    """Run Python in the project's folder or another -> CompletedProcess, in text."""
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )


def run_command(script, *args, **options):
    """Run one of the project's scripts as a user does -> CompletedProcess, in text.

    `script` is a file name, or a module name such as tools.get_flowers.
    """
    if script.endswith(".py"):
        return python(PROJECT / script, *args, **{"cwd": None, **options})
    return python("-m", script, *args, **options)
