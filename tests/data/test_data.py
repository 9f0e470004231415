"""The split of the photos, and its loaders."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Resize, ToTensor

from tests.helpers.photos import load, numbered_photos
from utils.cli import UserError
from utils.data.dataset import split_indices, split_samples
from utils.data.photos import find_photos


def numbers(loader):
    """Return the numbers of a loader's photos, in its order."""
    reds = [images[:, 0, 0, 0] * 255 for images, _ in loader]
    return torch.cat(reds).round().int().tolist()


def split_of(root, **options):
    """Return the numbers of the training photos and of the validation photos."""
    return tuple(sorted(numbers(loader)) for loader in load(root, **options))


# The split --------------------------------------------------------------------


@pytest.mark.parametrize("count, train", [(2, 1), (3, 2), (4, 3), (5, 4), (2588, 2070)])
def test_sizes_of_the_split(count, train):
    """B.5, M3, P16: int(0.8 * n) train, and at least one photo is on each side."""
    sides = split_indices(count)
    assert [len(side) for side in sides] == [train, count - train]
    assert sorted(sum(sides, [])) == list(range(count))


def test_validation_photos_of_three_species_never_train_more_species():
    """The assignment's species are split alike, alone or with two others."""
    few = ["astilbe", "bellflower", "calendula"]
    many = ["aster", "astilbe", "bellflower", "calendula", "rose"]

    def names(classes, seed):
        samples = [
            (f"{name}/{i}", n) for n, name in enumerate(classes) for i in range(9)
        ]
        train, valid = split_samples(samples, classes, seed)
        assert sorted(train + valid) == list(range(9 * len(classes)))
        return [{samples[i][0] for i in side} for side in (train, valid)]

    for seed in range(3):
        (train, valid), (other_train, other_valid) = names(few, seed), names(many, seed)
        assert train < other_train and valid < other_valid
        assert len(other_valid - valid) == 4  # of 18


def test_other_species_are_split_together():
    """Unless all three of the assignment's species are present."""
    samples = [(f"{i}", i % 2) for i in range(10)]
    for classes in (["rose", "tulip"], ["calendula", "rose"]):
        assert split_samples(samples, classes, 1) == split_indices(10, seed=1)


def test_split_depends_on_split_seed_only(tmp_path):
    """T2, R16: not on the seed, batch size, image size or global random state.

    No photo is on both sides, and every class is on each side.
    """
    root = numbered_photos(tmp_path, 30)
    first = split_of(root)
    assert sorted(sum(first, [])) == list(range(30)) and len(first[1]) == 6
    assert all(len(loader.dataset.labels.unique()) == 3 for loader in load(root))
    torch.manual_seed(1)
    np.random.seed(1)
    assert split_of(root, seed=5) == split_of(root, batch_size=7) == first
    assert split_of(root, width=16, num_worker=3) == first
    assert split_of(root, split_seed=1) != first


def test_an_unreadable_photo_changes_no_other_photo_of_the_split(tmp_path):
    """P13, T2"""
    root = numbered_photos(tmp_path, 30)
    train, valid = split_of(root)
    for path, _ in find_photos(root)[1][::7]:
        content = path.read_bytes()
        path.write_bytes(b"")
        number = int(path.stem)
        rest = [[n for n in side if n != number] for side in (train, valid)]
        assert list(split_of(root)) == rest
        path.write_bytes(content)


def test_hash_of_the_split(tmp_path):
    """T2: equal for the same validation photos, different for others."""
    root = numbered_photos(tmp_path, 30)
    first, second = (load(root, seed=n)[0].dataset.metadata for n in (0, 1))
    assert first == second == load(root)[1].dataset.metadata
    assert load(root, split_seed=1)[0].dataset.metadata["split"] != first["split"]
    assert first["classes"] == ["a", "b", "c"] and first["count"] == 30


# The batches ------------------------------------------------------------------


@pytest.mark.parametrize("width, height", [(24, 24), (20, 28), (33, 33), (40, 32)])
def test_pixels_are_those_of_torchvision(photo_folder, width, height):
    """B.5, M3, T19, T25, R20: Resize((H, W)) of the image, then ToTensor; no crop."""
    expected = ImageFolder(
        photo_folder, transform=Compose([Resize((height, width)), ToTensor()])
    )
    sides = split_indices(30)
    loaders = load(photo_folder, 30, width, height)
    for side, loader in zip(sides, loaders, strict=True):
        images, labels = loader.dataset[:]
        assert images.shape == (len(side), 3, height, width)
        pixels = torch.stack([expected[i][0] for i in side])
        assert (images - pixels).abs().max() <= 1 / 255 + 1e-6
        assert labels.tolist() == [expected.targets[i] for i in side]


def test_batches(photo_folder):
    """B.5: types, range, number and sizes; a shorter last batch is kept."""
    for loader, sizes in zip(load(photo_folder, 7), ([7, 7, 7, 3], [6]), strict=True):
        assert [len(images) for images, _ in loader] == sizes
        assert len(loader) == len(sizes) and loader.batch_size == 7
        assert len(loader.dataset) == sum(sizes)
        for images, labels in loader:
            assert images.dtype == torch.float32 and labels.dtype == torch.int64
            assert images.shape[1:] == (3, 8, 8) and labels.shape == images.shape[:1]
            assert images.min() >= 0 and images.max() <= 1 and images.max() > 0.5


def test_training_is_shuffled_and_validation_is_not(tmp_path):
    """B.5, P20: differently by `seed` and epoch, not by the global random state."""
    root, state = numbered_photos(tmp_path, 40), torch.get_rng_state()
    train, valid = load(root, seed=3)
    epochs = [numbers(train) for _ in range(2)]
    again = [numbers(load(root, seed=3)[0]), numbers(load(root, seed=4)[0])]
    assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1])
    assert again[0] == epochs[0] and sorted(again[1]) == sorted(epochs[0])
    assert again[1] != epochs[0] and epochs[0] != sorted(epochs[0])
    assert numbers(valid) == numbers(valid) == numbers(load(root, seed=4)[1])
    # Loading takes no random numbers of the training.
    assert torch.equal(torch.get_rng_state(), state)


def test_num_worker_has_no_effect(tmp_path):
    """T20: no process is started; the data set is pickled with its photos."""
    root = numbered_photos(tmp_path, 10)
    plain, loader = load(root)[0], load(root, num_worker=4)[0]
    shutil.rmtree(root)  # the photos are read once, before
    assert loader.num_workers == 0 and numbers(loader) == numbers(plain)
    copy = pickle.loads(pickle.dumps(loader.dataset))
    assert torch.equal(copy[:][0], loader.dataset[:][0])


def test_mean_of_each_channel(tmp_path):
    """Photo n is (n, 255 - n, 0) / 255, exactly: 0 is 0.0 and 255 is 1.0 (B.5)."""
    train, _ = load(numbered_photos(tmp_path, 30))
    red = sum(numbers(train)) / 24 / 255
    expected = torch.tensor([red, 1 - red, 0.0])
    torch.testing.assert_close(train.dataset.channel_means(), expected)
    images, _ = train.dataset[:]
    assert torch.equal(images[:, 0] + images[:, 1], torch.ones(24, 8, 8))
    assert (images[:, 2] == 0).all()


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 8, 10**6])
def test_two_photos_are_enough(tmp_path, count, batch_size):
    """P16, T01, T02, T03: one is refused."""
    train, valid = load(numbered_photos(tmp_path / "enough", count), batch_size)
    assert sorted(numbers(train) + numbers(valid)) == list(range(count))
    assert len(valid.dataset) == 1
    with pytest.raises(UserError, match="need at least 2"):
        load(numbered_photos(tmp_path / "one", 1), batch_size)
