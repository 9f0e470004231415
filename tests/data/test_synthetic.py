"""Truths about the painted stand-in for photos."""

import time

import pytest
import torch
import torch.nn.functional as F

from utils.config import SPECIES
from utils.data.synthetic import draw_flowers


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Times on a busy machine depend least on others with a single thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def set_of_300(one_thread):
    return draw_flowers(100, 24, 24, seed=0)


def linear_features(images):
    """The 4 x 4 thumbnail of each picture and a one for the offset -> (B, 49)."""
    thumbnails = F.adaptive_avg_pool2d(images.double() / 255, 4).flatten(1)
    return F.pad(thumbnails, (0, 1), value=1.0)


def test_same_seed_same_bits(set_of_300):
    torch.manual_seed(99)  # a global state unlike that of the first call
    assert torch.equal(set_of_300[0], draw_flowers(100, 24, 24, seed=0)[0])


def test_same_bits_on_one_thread_or_two(set_of_300):
    torch.set_num_threads(2)
    try:
        assert torch.equal(set_of_300[0], draw_flowers(100, 24, 24, seed=0)[0])
    finally:
        torch.set_num_threads(1)


def test_another_seed_is_another_set(set_of_300):
    others, _ = draw_flowers(100, 24, 24, seed=1)
    differs = (others != set_of_300[0]).flatten(1).any(dim=1)  # (300,)
    assert differs.all()


def test_global_random_state_is_untouched():
    before = torch.get_rng_state()
    draw_flowers(2, 16, 16)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "width, height", [(24, 24), (20, 28), (8, 8), (9, 31), (200, 8)]
)
def test_shapes_types_and_contrast_at_any_size(width, height):
    images, labels = draw_flowers(2, width, height)
    assert images.shape == (6, 3, height, width) and images.dtype == torch.uint8
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] and labels.dtype == torch.int64
    assert (images.float().flatten(1).std(dim=1) > 10).all()  # no blank picture


def test_one_large_picture_per_species_is_finished():
    """A picture larger than a batch is painted whole: no quarter of it is flat."""
    images, _ = draw_flowers(1, 320, 256)
    quarters = images.float().unfold(2, 128, 128).unfold(3, 160, 160)
    assert (quarters.std(dim=(-2, -1)) > 2).all()


def test_colours_are_those_of_photos(set_of_300):
    values = set_of_300[0].double() / 255
    means = values.mean(dim=(0, 2, 3))  # (3,)
    assert ((means > 0.28) & (means < 0.52)).all()
    assert 0.18 < values.std() < 0.28
    assert ((values < 0.01) | (values > 0.99)).double().mean() < 0.03


@pytest.mark.parametrize("size", [8, 24])
def test_all_pictures_differ(size):
    images, _ = draw_flowers(100, size, size)
    assert len(images.flatten(1).unique(dim=0)) == len(images)


def test_mean_colours_run_from_orange_over_pink_to_violet(set_of_300):
    images, labels = set_of_300
    reds, _, blues = images.double().mean((2, 3)).unbind(dim=1)  # 3 x (300,)
    excess = {SPECIES[n]: (blues - reds)[labels == n].mean() for n in range(3)}
    assert sorted(excess, key=excess.get) == ["calendula", "astilbe", "bellflower"]


def test_a_line_separates_the_species():
    """Ridge regression learns the species on one half and names those of the other."""
    images, labels = draw_flowers(300, 24, 24, seed=3)
    features, targets = linear_features(images), F.one_hot(labels).double()
    learn, check = slice(0, None, 2), slice(1, None, 2)
    gram = features[learn].T @ features[learn] + torch.eye(features.shape[1])
    weights = torch.linalg.solve(gram, features[learn].T @ targets[learn])  # (49, 3)
    named = (features[check] @ weights).argmax(dim=1)
    assert (named == labels[check]).double().mean() > 0.8  # chance is 1/3


def test_2400_pictures_in_five_seconds_on_one_thread():
    start = time.perf_counter()
    images, _ = draw_flowers(800, 24, 24)
    assert len(images) == 2400
    assert time.perf_counter() - start < 5
