"""Which folders are classes and which files are photos, and their order."""

import os
import shutil

import pytest
import torch

from tests.helpers.photos import JUNK, load, names, photo
from utils.cli import UsageError, UserError
from utils.data.photos import find_photos


def pixels(root):
    """Return the images and labels of both sides, training first."""
    sides = load(root, 8, 16, 16)
    images = torch.cat([side.dataset.images for side in sides])
    return images, torch.cat([side.dataset.labels for side in sides])


def test_each_folder_is_a_class(photo_folder):
    """M3, P17: classes and photos are sorted by name."""
    classes, samples = names(photo_folder)
    assert classes == ["astilbe", "bellflower", "calendula"]
    assert samples == [(f"{classes[n // 10]}/{n:03}.png", n // 10) for n in range(30)]


@pytest.mark.parametrize("junk", JUNK)
def test_system_files_are_ignored_without_a_warning(photo_folder, caplog, junk):
    """P14, I06-I08: even if they are photos."""
    before = names(photo_folder)
    photo(photo_folder / junk)
    assert names(photo_folder) == before and caplog.messages == []


def test_an_empty_folder_is_no_class_and_gives_one_warning(photo_folder, caplog):
    """I04"""
    before = names(photo_folder)
    (photo_folder / "bluebell").mkdir()
    assert names(photo_folder) == before
    (warning,) = caplog.messages
    assert str(photo_folder / "bluebell") in warning


@pytest.mark.parametrize("name", ["x.JPG", "x.JPEG", "x.Png", "x.webp", "x.bmp"])
def test_extensions_in_any_case(photo_folder, name):
    """I13, I26: the content may have another format."""
    photo(photo_folder / "astilbe" / name)
    assert (f"astilbe/{name}", 0) in names(photo_folder)[1]
    assert len(pixels(photo_folder)[0]) == 31


def test_links_and_folders_named_like_photos_are_ignored(photo_folder):
    """I22, I24: no endless loop; each file once."""
    before = names(photo_folder)
    (photo_folder / "astilbe" / "x.jpg").mkdir()
    os.symlink(photo_folder / "astilbe", photo_folder / "astilbe" / "loop")
    os.symlink(photo_folder, photo_folder / "bellflower" / "up")
    assert names(photo_folder) == before


def test_names_in_any_script_change_no_pixel(photo_folder, tmp_path):
    """I25: spaces, accents, Chinese, emoji and quotes in files, classes and path."""
    before = pixels(photo_folder)
    root = photo_folder.rename(tmp_path / 'Fotos d\'été "花" 🌸')
    for path, _ in find_photos(root)[1]:
        target = root / f"{path.parent.name} ü花" / f"{path.stem} 'é\" 🌷.png"
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    assert all(map(torch.equal, pixels(root), before))
    # An archive from a system with another encoding has names that are not UTF-8.
    for path, _ in find_photos(root)[1]:
        os.rename(path, os.fsencode(path.with_suffix("")) + b"\xe9\xff.png")
    assert all(map(torch.equal, pixels(root), before))


@pytest.mark.parametrize("order", range(5))
def test_order_and_times_of_creation_change_no_pixel(photo_folder, tmp_path, order):
    """P17: same list, same split, same pixels."""
    samples = [path for path, _ in find_photos(photo_folder)[1]]
    shuffled = torch.randperm(30, generator=torch.Generator().manual_seed(order))
    for age, number in enumerate(shuffled.tolist()):
        path = samples[number]
        target = tmp_path / "copy" / path.relative_to(photo_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        os.utime(target, (10**9 + age, 10**9 - age))
    assert names(tmp_path / "copy") == names(photo_folder)
    assert all(map(torch.equal, pixels(tmp_path / "copy"), pixels(photo_folder)))


# Folders without photos --------------------------------------------------------


@pytest.fixture(params=["missing", "empty", "only junk", "empty classes"])
def without_photos(request, tmp_path):
    """Return (a folder without a photo, what it is)."""
    root = tmp_path / "flowers"
    if request.param != "missing":
        root.mkdir()
    if request.param == "only junk":
        (root / ".DS_Store").write_bytes(b"x")
        (root / "README.md").write_text("photos go here")
    if request.param == "empty classes":
        (root / "astilbe").mkdir()
        (root / "rose").mkdir()
    return root, request.param


def test_drawn_flowers_replace_missing_photos(without_photos, caplog):
    """I01, I02: one warning says how to get the photos."""
    root, _ = without_photos
    training, validation = load(root, synthetic_if_empty=True)
    assert training.dataset.metadata["source"] == "drawn flowers"
    assert len(training.dataset) == 4 * len(validation.dataset) == 1920
    (warning,) = caplog.messages
    assert str(root) in warning and "python -m tools.get_flowers" in warning


def test_no_flowers_are_drawn_by_default(without_photos):
    """I01-I03: a folder without photos is refused."""
    root, what = without_photos
    with pytest.raises(UserError) as caught:
        load(root)
    words = {"missing": "is not a folder", "empty classes": "no photos"}
    assert words.get(what, "no class folder") in str(caught.value)
    assert str(root) in str(caught.value)
    assert isinstance(caught.value, UsageError) == (what == "missing")


@pytest.mark.parametrize("draw", [False, True])
def test_drawn_flowers_never_replace_photos_that_cannot_be_used(tmp_path, draw):
    """I01, I05: outside class folders, or damaged, or `root` itself is a file."""
    photo(tmp_path / "x.jpg")
    with pytest.raises(UserError, match="no class folder; put each class into"):
        load(tmp_path, synthetic_if_empty=draw)
    with pytest.raises(UsageError, match="is not a folder"):
        load(tmp_path / "x.jpg", synthetic_if_empty=draw)
    (tmp_path / "rose").mkdir()
    for number in range(3):
        (tmp_path / "rose" / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="100 % unreadable"):
        load(tmp_path, synthetic_if_empty=draw)
