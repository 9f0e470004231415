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
    "width, height", [(24, 24), (20, 28), (8, 8), (9, 31), (200, 8), (320, 256)]
)
def test_shapes_types_and_contrast_at_any_size(width, height):
    """No quarter of an image is blank; the last one is larger than a batch."""
    images, labels = draw_flowers(2, width, height)
    assert images.shape == (6, 3, height, width) and images.dtype == torch.uint8
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] and labels.dtype == torch.int64
    assert (images.float().flatten(1).std(dim=1) > 10).all()
    rows, columns = height // 2, width // 2
    quarters = images.float().unfold(2, rows, rows).unfold(3, columns, columns)
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
    """Least squares of 4 x 4 thumbnails: half of the images classify the others."""
    images, labels = draw_flowers(300, 24, 24, seed=3)
    thumbnails = F.adaptive_avg_pool2d(images.double() / 255, 4).flatten(1)
    features = F.pad(thumbnails, (0, 1), value=1.0)  # (900, 49), a one for the offset
    targets = F.one_hot(labels).double()
    weights = torch.linalg.lstsq(features[::2], targets[::2]).solution  # (49, 3)
    predicted = (features[1::2] @ weights).argmax(dim=1)
    assert (predicted == labels[1::2]).double().mean() > 0.8  # chance is 1/3
