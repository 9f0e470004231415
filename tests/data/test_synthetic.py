"""The drawn flowers that replace missing photos."""

import pytest
import torch
import torch.nn.functional as F

from utils.config import SPECIES
from utils.data.synthetic import draw_flowers


@pytest.fixture(scope="module")
def set_of_300():
    """Return 100 images of each species, and their labels."""
    return draw_flowers(100, 24, 24, seed=0)


def linear_features(images):
    """Return the 4 x 4 thumbnail of each image and a one for the offset, (B, 49)."""
    thumbnails = F.adaptive_avg_pool2d(images.double() / 255, 4).flatten(1)
    return F.pad(thumbnails, (0, 1), value=1.0)


@pytest.mark.parametrize("threads", [1, 2])
def test_images_depend_on_the_seed_only(set_of_300, threads):
    """Not on the number of threads or on the global random state, which is kept."""
    before, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(threads)
    try:
        images = draw_flowers(100, 24, 24, seed=0)[0]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, set_of_300[0])


@pytest.mark.parametrize(
    "width, height", [(24, 24), (20, 28), (8, 8), (9, 31), (200, 8)]
)
def test_shapes_types_and_contrast_at_any_size(width, height):
    images, labels = draw_flowers(2, width, height)
    assert images.shape == (6, 3, height, width) and images.dtype == torch.uint8
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] and labels.dtype == torch.int64
    assert (images.float().flatten(1).std(dim=1) > 10).all()  # none is blank


def test_an_image_larger_than_a_batch_is_complete():
    """No quarter of it is blank."""
    images, _ = draw_flowers(1, 320, 256)
    quarters = images.float().unfold(2, 128, 128).unfold(3, 160, 160)
    assert (quarters.std(dim=(-2, -1)) > 2).all()


def test_colours_are_like_those_of_photos(set_of_300):
    """Mean, standard deviation and proportion of black and white pixels."""
    values = set_of_300[0].double() / 255
    means = values.mean(dim=(0, 2, 3))  # (3,)
    assert ((means > 0.28) & (means < 0.52)).all()
    assert 0.18 < values.std() < 0.28
    assert ((values < 0.01) | (values > 0.99)).double().mean() < 0.03


@pytest.mark.parametrize("size", [8, 24])
def test_all_images_of_two_seeds_differ(size):
    images = torch.cat([draw_flowers(100, size, size, seed)[0] for seed in (0, 1)])
    assert len(images.flatten(1).unique(dim=0)) == len(images) == 600


def test_mean_colours_are_orange_pink_and_violet(set_of_300):
    """By the excess of blue over red."""
    images, labels = set_of_300
    reds, _, blues = images.double().mean((2, 3)).unbind(dim=1)  # 3 x (300,)
    excess = {SPECIES[n]: (blues - reds)[labels == n].mean() for n in range(3)}
    assert sorted(excess, key=excess.get) == ["calendula", "astilbe", "bellflower"]


def test_a_linear_model_classifies_the_species():
    """Ridge regression on one half of the images classifies the other half."""
    images, labels = draw_flowers(300, 24, 24, seed=3)
    features, targets = linear_features(images), F.one_hot(labels).double()
    learn, check = slice(0, None, 2), slice(1, None, 2)
    gram = features[learn].T @ features[learn] + torch.eye(features.shape[1])
    weights = torch.linalg.solve(gram, features[learn].T @ targets[learn])  # (49, 3)
    predicted = (features[check] @ weights).argmax(dim=1)
    assert (predicted == labels[check]).double().mean() > 0.8  # chance is 1/3
