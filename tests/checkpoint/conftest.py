"""What the tests of checkpoints share."""

import pytest

from utils.files import prepare_target


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "models" / "Best_AE.pth"
    prepare_target(path)
    return path
