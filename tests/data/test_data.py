"""The split and its loaders."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Resize, ToTensor

from tests.helpers.photos import load, numbered_photos
from utils.cli import UserError
from utils.data.dataset import split_indices, split_samples
from utils.data.photos import find_photos


def numbers(loader):
    """Return the numbers of the photos that a loader gives, in its order."""
    reds = [images[:, 0, 0, 0] * 255 for images, _ in loader]
    return torch.cat(reds).round().int().tolist()


def split_of(root, **options):
    """Return the numbers of the training photos and of the validation photos."""
    return tuple(sorted(numbers(loader)) for loader in load(root, **options))


# The split --------------------------------------------------------------------


@pytest.mark.parametrize(
    "count, train, valid",
    [
        (2, 1, 1),
        (3, 2, 1),
        (4, 3, 1),
        (5, 4, 1),
        (30, 24, 6),
        (2588, 2070, 518),
    ],
)
def test_shares_of_the_split(count, train, valid):
    """B.5, M3: int(0.8 * n), and a photo on each side from n = 2."""
    sides = split_indices(count)
    assert [len(side) for side in sides] == [train, valid]
    assert sorted(sum(sides, [])) == list(range(count))


def test_a_photo_that_validates_three_species_trains_no_others():
    """The same split of the assignment's species, alone or among four others."""
    few = ["astilbe", "bellflower", "calendula"]
    many = ["aster", "astilbe", "bellflower", "calendula", "rose"]

    def names(classes, seed):
        samples = [
            (f"{kind}/{i}", k) for k, kind in enumerate(classes) for i in range(9)
        ]
        train, valid = split_samples(samples, classes, seed)
        assert sorted(train + valid) == list(range(9 * len(classes)))
        return [{samples[i][0] for i in side} for side in (train, valid)]

    for seed in range(3):
        (train, valid), (other_train, other_valid) = names(few, seed), names(many, seed)
        assert train < other_train and valid < other_valid
        assert len(other_valid - valid) == 4  # of 18


def test_split_of_other_species_is_one():
    """Without all three of the assignment's species, no group is set apart."""
    samples = [(f"{i}", i % 2) for i in range(10)]
    for classes in (["rose", "tulip"], ["calendula", "rose"]):
        assert list(split_samples(samples, classes, 1)) == list(
            split_indices(10, seed=1)
        )


def test_split_is_disjoint_complete_and_mixed(tmp_path):
    """T2, R16: no photo on both sides; every class on each."""
    root = numbered_photos(tmp_path, 60)
    train, valid = split_of(root)
    assert sorted(train + valid) == list(range(60)) and len(valid) == 12
    for loader in load(root):
        assert set(loader.dataset.labels.tolist()) == {0, 1, 2}


def test_split_depends_on_split_seed_alone(tmp_path):
    """T2: not on the seed, the batch, the size, or what was drawn before."""
    root = numbered_photos(tmp_path, 30)
    first = split_of(root)
    torch.manual_seed(1)
    np.random.seed(1)
    torch.rand(7)
    assert split_of(root, seed=5) == split_of(root, batch_size=7) == first
    assert split_of(root, width=16, num_worker=3) == first
    assert split_of(root, split_seed=1) != first


def test_bad_photo_moves_no_other_photo(tmp_path):
    """P13, T2: wherever it stands, its own side loses it and nothing else happens."""
    root = numbered_photos(tmp_path, 30)
    train, valid = split_of(root)
    for path, _ in find_photos(root)[1][::7]:
        content = path.read_bytes()
        path.write_bytes(b"")
        number = int(path.stem)
        left = [[n for n in side if n != number] for side in (train, valid)]
        assert list(split_of(root)) == left
        path.write_bytes(content)


def test_fingerprint_of_the_split(tmp_path):
    """T2: same for the same validation photos, another for others."""
    root = numbered_photos(tmp_path, 30)
    first, second = (load(root, seed=n)[0].dataset.metadata for n in (0, 1))
    assert first == second == load(root)[1].dataset.metadata
    assert load(root, split_seed=1)[0].dataset.metadata["split"] != first["split"]
    assert first["classes"] == ["a", "b", "c"] and first["count"] == 30


# The batches ------------------------------------------------------------------


def test_samples_and_targets_are_those_of_image_folder(photo_folder):
    """B.5, M3"""
    theirs = ImageFolder(photo_folder)
    classes, samples = find_photos(photo_folder)
    assert classes == theirs.classes
    assert [(str(path), label) for path, label in samples] == theirs.samples


@pytest.mark.parametrize("width, height", [(24, 24), (20, 28), (33, 33), (40, 32)])
def test_pixels_are_those_of_torchvision(photo_folder, width, height):
    """B.5, T19, T25, R20: Resize((H, W)) of the PIL image, then ToTensor; no crop."""
    theirs = ImageFolder(
        photo_folder, transform=Compose([Resize((height, width)), ToTensor()])
    )
    sides = split_indices(30)
    loaders = load(photo_folder, 30, width, height)
    for side, loader in zip(sides, loaders, strict=True):
        images, labels = loader.dataset[:]
        assert images.shape == (len(side), 3, height, width)
        wanted = torch.stack([theirs[i][0] for i in side])
        assert (images - wanted).abs().max() <= 1 / 255 + 1e-6
        assert labels.tolist() == [theirs.targets[i] for i in side]


def test_width_is_width(tmp_path):
    """T19: left half black, right half white, squashed to 20 wide and 28 high."""
    halves = np.zeros((60, 80, 3), np.uint8)
    halves[:, 40:] = 255
    for number in range(2):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(halves).save(tmp_path / "a" / f"{number}.png")
    ((images, _),) = load(tmp_path, width=20, height=28)[0]
    assert images.shape == (1, 3, 28, 20)
    assert (images[..., :8] == 0).all() and (images[..., 12:] == 1).all()


def test_batches(photo_folder):
    """B.5: types, range, number and sizes; the short last batch is kept."""
    for loader, count in zip(load(photo_folder, 7), (24, 6), strict=True):
        batches = list(loader)
        sizes = [len(images) for images, _ in batches]
        assert len(loader) == len(batches) == -(-count // 7) and sum(sizes) == count
        assert all(size == 7 for size in sizes[:-1]) and sizes[-1] == (count % 7 or 7)
        assert len(loader.dataset) == count and loader.batch_size == 7
        for images, labels in batches:
            assert images.dtype == torch.float32 and labels.dtype == torch.int64
            assert images.shape[1:] == (3, 8, 8) and labels.shape == images.shape[:1]
            assert images.min() >= 0 and images.max() <= 1 and images.max() > 0.5


def test_range_reaches_both_ends(tmp_path):
    """B.5: 0 is 0.0 and 255 is 1.0, exactly."""
    root = numbered_photos(tmp_path, 2)
    values = torch.cat([images for loader in load(root) for images, _ in loader])
    assert values.unique().tolist() == pytest.approx([0, 1 / 255, 254 / 255, 1])


def test_grey_is_repeated(tmp_path):
    """B.5"""
    (tmp_path / "a").mkdir()
    for number in range(2):
        grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
        Image.fromarray(grey).save(tmp_path / "a" / f"{number}.png")
    ((images, _),) = load(tmp_path)[0]
    wanted = torch.arange(64).reshape(1, 1, 8, 8).expand(1, 3, 8, 8)
    assert torch.equal((images * 255).round().int(), wanted.int())


def test_training_is_shuffled_and_validation_is_not(tmp_path):
    """B.5, P20: by `seed` and by epoch; validation always alike."""
    root = numbered_photos(tmp_path, 40)
    train, valid = load(root, seed=3)
    epochs = [numbers(train) for _ in range(2)]
    again = [numbers(load(root, seed=3)[0]), numbers(load(root, seed=4)[0])]
    assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1])
    assert again[0] == epochs[0] and sorted(again[1]) == sorted(epochs[0])
    assert again[1] != epochs[0] and epochs[0] != sorted(epochs[0])
    assert numbers(valid) == numbers(valid) == numbers(load(root, seed=4)[1])


def test_the_global_random_state_is_untouched(tmp_path):
    """P20: the data set draws nothing that training would draw."""
    root, before = numbered_photos(tmp_path, 10), torch.get_rng_state()
    for loader in load(root):
        list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_are_accepted_and_without_effect(tmp_path):
    """T20: no process is started, and the data set could be handed to one."""
    root = numbered_photos(tmp_path, 10)
    plain, asked = load(root)[0], load(root, num_worker=4)[0]
    assert asked.num_workers == 0 and numbers(asked) == numbers(plain)
    copy = pickle.loads(pickle.dumps(asked.dataset))
    assert torch.equal(copy[:][0], asked.dataset[:][0])


def test_photos_are_read_once(tmp_path):
    """T20: from memory; the files may go away."""
    root = numbered_photos(tmp_path, 10)
    train, _ = load(root)
    for path, _ in find_photos(root)[1]:
        path.unlink()
    assert len(numbers(train)) == 8


def test_mean_of_each_colour(tmp_path):
    """Photo n is (n, 255 - n, 0), so the means follow from the numbers alone."""
    train, _ = load(numbered_photos(tmp_path, 30))
    red = sum(numbers(train)) / 24 / 255
    wanted = torch.tensor([red, 1 - red, 0.0])
    torch.testing.assert_close(train.dataset.channel_means(), wanted)


# How many ---------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 8, 10**6])
def test_few_photos_work(tmp_path, count, batch_size):
    """P16, T02, T03"""
    train, valid = load(numbered_photos(tmp_path, count), batch_size)
    assert sorted(numbers(train) + numbers(valid)) == list(range(count))
    assert len(valid.dataset) == 1


def test_one_photo_is_refused(tmp_path):
    """P16, T01"""
    with pytest.raises(UserError, match="need at least 2"):
        load(numbered_photos(tmp_path, 1))


def test_real_photos(real_photos):
    """M3, C4: three kinds of some hundreds each; copies differ in their counts."""
    classes, samples = find_photos(real_photos)
    labels = [label for _, label in samples]
    assert classes == ["astilbe", "bellflower", "calendula"]
    assert all(500 < labels.count(label) < 1100 for label in range(3))
