"""What the tests of several tools share: photos, archives, folders, a submission."""

import shutil

import numpy as np
import pytest

from tests.helpers.get_flowers import PHOTOS, make_zip
from tests.helpers.project import write_photos
from tests.helpers.submission import make_tree, write_pale_photos
from tests.helpers.submission_damage import Place
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


@pytest.fixture(scope="session")
def good_submission(tmp_path_factory):
    """Return a tree that meets every requirement, and the photos of its weights."""
    folder = tmp_path_factory.mktemp("submission")
    data = write_pale_photos(folder / "photos")
    photos = create_flower_dataloaders(16, data, 24, 24)[1].dataset
    return make_tree(folder / "tree", photos), data, photos


@pytest.fixture
def submission(good_submission, tmp_path):
    """Return a copy of that tree, as a Place."""
    tree, data, photos = good_submission
    return Place(shutil.copytree(tree, tmp_path / "tree"), data, photos)
