"""Runs of tools.evaluate."""

import json

import numpy as np
import pytest

from tests.helpers.project import write_photos
from tools import evaluate
from utils.data_processor import create_flower_dataloaders


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Drawn photos, and those of training as an array."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_photos(folder / "photos", 50)
    training, _ = create_flower_dataloaders(16, folder / "photos", 24, 24)
    np.save(folder / "train.npy", training.dataset.images.permute(0, 2, 3, 1).numpy())
    return folder


def measured(place, capsys, *arguments):
    """Run the command with --json -> {column: {measure: [value, low, high]}}."""
    data = ["--data", str(place / "photos"), "--json"]
    evaluate.main([*map(str, arguments), *data])
    return json.loads(capsys.readouterr().out)


def read(path, *flags):
    """Read or draw images as the command with these flags does -> images, species."""
    args = evaluate.parse([str(path), "--count", "5", *flags])
    return evaluate.read_images(path, args)
