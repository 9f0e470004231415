"""Measures of the real photos, by pixels and by the committed features."""

import pytest
import torch

from tests.helpers.project import PROJECT
from utils.data_processor import create_flower_dataloaders
from utils.evaluation.features import load_features
from utils.evaluation.metrics import extract, kernel_distance, nearest_training_images


@pytest.fixture(scope="module")
def sides(real_photos):
    """Return training and validation photos, each (N, 3, 24, 24) in [0, 1]."""
    loaders = create_flower_dataloaders(16, real_photos, 24, 24)
    return [loader.dataset.all_images() for loader in loaders]


@pytest.fixture(scope="module")
def extractor():
    """Return the committed feature network."""
    return load_features(PROJECT / "models" / "features.pt")


@pytest.mark.parametrize("space, least", [("pixels", 0.95), ("features", 0.5)])
def test_noisy_training_photos_are_copies_and_validation_photos_are_not(
    sides, extractor, space, least
):
    """Noise of standard deviation 0.02 changes features more than pixels."""
    training, validation = sides
    by = extractor if space == "features" else None
    chosen = torch.arange(0, len(training), 4)
    generator = torch.Generator().manual_seed(0)
    copies = training[chosen]
    copies = copies + 0.02 * torch.randn(copies.shape, generator=generator)
    found = nearest_training_images(copies, training, by)
    assert found.copies().double().mean() > least
    assert (found.indices == chosen).double().mean() > 0.95
    others = nearest_training_images(validation, training, by)
    assert others.copies().double().mean() < 0.02


def test_kernel_distance_of_two_halves_of_the_photos_is_zero(sides, extractor):
    """Within its interval."""
    features = extract(extractor, torch.cat(sides))
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    halves = features[order[::2]], features[order[1::2]]
    _, low, high = kernel_distance(*halves)
    assert low <= 0 <= high
