"""Measures of the real photos, by pixels and by the committed features."""

import pytest
import torch

from tests.helpers.project import PROJECT
from utils.data_processor import create_flower_dataloaders
from utils.evaluation.features import find_extractor
from utils.evaluation.metrics import nearest_training_images

FEATURES = PROJECT / "models" / "features.pt"


@pytest.fixture(scope="module")
def sides(real_photos):
    """Return training and validation photos, each (N, 3, 24, 24) in [0, 1]."""
    loaders = create_flower_dataloaders(16, real_photos, 24, 24)
    return [loader.dataset.all_images() for loader in loaders]


@pytest.mark.parametrize(
    "space, least",
    [("pixels", 0.95), pytest.param(FEATURES, 0.5, marks=pytest.mark.slow)],
)
def test_noisy_training_photos_are_copies_and_validation_photos_are_not(
    sides, space, least
):
    """Noise of standard deviation 0.02 changes features more than pixels."""
    training, validation = sides
    by = find_extractor(space)
    chosen = torch.arange(0, len(training), 4)
    generator = torch.Generator().manual_seed(0)
    copies = training[chosen]
    copies = copies + 0.02 * torch.randn(copies.shape, generator=generator)
    found = nearest_training_images(copies, training, by)
    assert found.copies().double().mean() > least
    assert (found.indices == chosen).double().mean() > 0.95
    others = nearest_training_images(validation, training, by)
    assert others.copies().double().mean() < 0.02
