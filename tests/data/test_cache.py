"""The cache of decoded photos: the same photos, and when another is made."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import train_script  # noqa: F401  (children find it among the loaded modules)
from tests.helpers.cache import (
    array_of,
    drawn_loaders,
    drawn_map,
    drawn_parts,
    rebuilt,
    same,
)
from tests.helpers.commands import files_below, train
from tests.helpers.outputs import same_weights
from tests.helpers.photos import load
from utils.cli import UserError
from utils.data import cache, dataset
from utils.data.photos import decode_each

SET = {"hflip": True, "translate": 1}  # what draws random numbers


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


# The same photos ----------------------------------------------------------------------


def test_loaders_with_and_without_a_cache_are_equal(photo_folder, folder):
    """Built and opened: batches of two epochs, split, metadata and all sums."""
    for _ in range(2):
        plain = load(photo_folder, **SET)
        cached = load(photo_folder, **SET, cache=folder)
        assert same(plain, cached)
        for one, other in zip(plain, cached, strict=True):
            one, other = one.dataset, other.dataset
            assert one.channel_means().equal(other.channel_means())
            assert one.class_proportions() == other.class_proportions()
            assert one.all_images().equal(other.all_images())
            assert one[3][0].equal(other[3][0]) and one[:2][0].equal(other[:2][0])
            assert one.images.shape == other.images.shape


def test_species_are_chosen_without_reading_the_photos(photo_folder, folder):
    options = {"species": ["calendula", "astilbe"]}
    cached = load(photo_folder, **options, cache=folder)
    assert same(load(photo_folder, **options), cached)
    assert not isinstance(cached[0].dataset.images, torch.Tensor)


def test_a_cache_is_decoded_once_and_is_a_plain_array(
    photo_folder, folder, monkeypatch
):
    """NumPy reads it; the photos are in the order of their names."""
    decoded = []

    def counted(paths, *size):
        decoded.extend(paths)
        return decode_each(paths, *size)

    monkeypatch.setattr(cache, "decode_each", counted)
    for _ in range(3):
        load(photo_folder, cache=folder)
    assert decoded == sorted(photo_folder.rglob("*.png"))
    array = np.load(array_of(folder), mmap_mode="r")
    assert array.shape == (30, 3, 8, 8) and array.dtype == np.uint8
    expected = [image for image, _ in decode_each(decoded, 8, 8)]
    assert torch.from_numpy(np.array(array)).equal(torch.stack(expected))


def test_what_is_read_is_a_copy(photo_folder, folder):
    """Nobody can write into the file through what it returns."""
    before = load(photo_folder, cache=folder)
    for index in (0, [1, 2], slice(3, 6)):
        before[0].dataset.images[index].fill_(7)
    assert same(load(photo_folder), load(photo_folder, cache=folder))


@pytest.mark.parametrize("name", ["AE", "diffusion"])
def test_a_training_with_a_cache_has_the_same_weights(tmp_path, photo_folder, name):
    """And writes nothing else than without it, but for the cache."""
    made = {}
    for run, flags in {"plain": (), "cached": ("--cache", tmp_path / "cache")}.items():
        result = train(name, tmp_path / run, photo_folder, *flags)
        assert (result.code, result.err) == (0, "")
        made[run] = files_below(tmp_path / run)
    assert made["plain"] == made["cached"]
    for file in made["plain"]:
        if file.endswith((".pth", ".pkl")) and "Last" not in file:
            assert same_weights(*(tmp_path / run / file for run in made))
    names = [Path(name).suffix for name in files_below(tmp_path / "cache")]
    assert sorted(names) == [".json", ".npy"]


# When it is used ----------------------------------------------------------------------


def test_the_photos_of_this_project_stay_in_memory(photo_folder, tmp_path, monkeypatch):
    """Sixteen species at 24 x 24 and at 64 x 64; nothing is written."""
    assert cache.IN_MEMORY > 15_740 * 3 * 64 * 64
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    sides = load(photo_folder)
    assert isinstance(sides[0].dataset.images, torch.Tensor)
    assert not (tmp_path / "home").exists()


def test_larger_sets_are_cached_in_the_users_folder(
    photo_folder, tmp_path, monkeypatch
):
    plain = load(photo_folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(dataset, "IN_MEMORY", 30 * 3 * 8 * 8)
    load(photo_folder)
    assert not (tmp_path / "home").exists()
    monkeypatch.setattr(dataset, "IN_MEMORY", 30 * 3 * 8 * 8 - 1)
    assert same(plain, load(photo_folder))
    assert array_of(tmp_path / "home" / "nn-lab").is_file()


def test_without_a_home_a_folder_is_asked_for(photo_folder, monkeypatch):
    """P24: in an empty environment one line, and small sets need no home."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no such user
    load(photo_folder)
    monkeypatch.setattr(dataset, "IN_MEMORY", 0)
    with pytest.raises(UserError, match="--cache DIR"):
        load(photo_folder)


def test_of_a_larger_set_a_part_is_evenly_spaced(tmp_path, monkeypatch):
    images = drawn_map(tmp_path / "x.npy", 1000, 8)
    side = drawn_loaders(images)[0].dataset
    assert side.fitting_memory() is side
    monkeypatch.setattr(dataset, "IN_MEMORY", 100 * 3 * 8 * 8)
    part = side.fitting_memory()
    assert len(part) == 100 and part.all_images().equal(side[::8][0])
    assert part.labels.equal(side.labels[::8]) and part.metadata == side.metadata


# Other photos -------------------------------------------------------------------------


def changed(path):
    shutil.copyfile(path.with_name("001.png"), path)
    os.utime(path, ns=(1, 1))


def touched(path):
    os.utime(path, ns=(1, 1))


def added(path):
    shutil.copyfile(path, path.with_name("new.png"))


def renamed(path):
    path.rename(path.with_name("zzz.png"))


@pytest.mark.parametrize("change", [changed, touched, added, Path.unlink, renamed])
def test_other_photos_make_another_cache(photo_folder, folder, caplog, change):
    """With one line; the next time there is none."""
    load(photo_folder, cache=folder)
    change(photo_folder / "astilbe" / "000.png")
    plain = load(photo_folder)
    for lines in (1, 1):
        assert same(plain, load(photo_folder, cache=folder))
        assert len(rebuilt(caplog)) == lines
    assert "have changed" in rebuilt(caplog)[0]


def test_another_size_and_another_folder_have_their_own_caches(
    photo_folder, tmp_path, folder, caplog
):
    """Both are kept, and neither is taken for the other."""
    other = shutil.copytree(photo_folder, tmp_path / "other")
    (other / "astilbe" / "000.png").unlink()
    options = [(photo_folder, 8), (photo_folder, 12), (other, 8)]
    for _ in range(2):
        for root, size in options:
            sides = load(root, 4, size, size, cache=folder)
            assert same(load(root, 4, size, size), sides)
    assert len(list(folder.glob("*.npy"))) == 3 and rebuilt(caplog) == []


@pytest.mark.parametrize("by_map", [False, True])
def test_rows_of_a_map_are_those_of_the_file(tmp_path, monkeypatch, by_map):
    """In any order, with repetition, of any kind of index; with and without preadv."""
    if by_map:
        monkeypatch.delattr(os, "preadv", raising=False)
    images = drawn_map(tmp_path / "x.npy", 700, 8)
    plain = torch.cat(list(drawn_parts(700, 8)))
    rows = torch.randint(700, (300,), generator=torch.manual_seed(0))
    part, expected = images.subset(rows), plain[rows]
    for index in (5, -1, slice(2, 9), slice(None, None, 7), [3, 3, 0], rows < 9):
        assert part[index].equal(expected[index])
    assert torch.cat(list(part.split(64))).equal(expected)
    assert part.shape == expected.shape and len(part) == 300
