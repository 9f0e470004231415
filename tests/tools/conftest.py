"""What the tests of several tools share: drawn photos, an archive, a new folder."""

import numpy as np
import pytest

from tests.helpers.get_flowers import PHOTOS, make_zip
from tests.helpers.project import write_photos
from utils.data_processor import create_flower_dataloaders


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """Write drawn photos, and the training photos among them as train.npy."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_photos(folder / "photos", 50)
    training, _ = create_flower_dataloaders(16, folder / "photos", 24, 24)
    np.save(folder / "train.npy", training.dataset.images.permute(0, 2, 3, 1).numpy())
    return folder


@pytest.fixture
def target(tmp_path):
    """Return the folder to install; only its parent may change."""
    (tmp_path / "project").mkdir()
    return tmp_path / "project" / "flowers"


@pytest.fixture
def good_zip(tmp_path):
    """Return an archive with two photos of each of the three species."""
    return make_zip(tmp_path / "photos.zip", PHOTOS)
