"""The folder of photos: what counts as a class, what as a photo, in which order."""

import logging
import os
import shutil

import pytest
import torch
from PIL import Image

from utils.cli import UsageError, UserError
from utils.data.photos import find_photos
from utils.data_processor import create_flower_dataloaders


def names(root):
    """Return class names and the photos by their place below root, with labels."""
    classes, samples = find_photos(root)
    return classes, [(path.relative_to(root).as_posix(), n) for path, n in samples]


def pixels(root):
    """Return the decoded images of both sides, and their labels."""
    sides = create_flower_dataloaders(8, root, 16, 16)
    images = torch.cat([side.dataset.images for side in sides])
    return images, torch.cat([side.dataset.labels for side in sides])


def photo(path):
    """Save a small JPEG, whatever the name's extension is; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path, "JPEG")


def warnings_in(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_one_folder_is_one_class(photo_folder):
    """M3, P17: classes and photos in the order of their names."""
    classes, samples = names(photo_folder)
    assert classes == ["astilbe", "bellflower", "calendula"]
    assert samples == [(f"{classes[n // 10]}/{n:03}.png", n // 10) for n in range(30)]


JUNK = [
    "astilbe/.DS_Store",
    ".DS_Store",
    "astilbe/._rose.jpg",
    "astilbe/Thumbs.db",
    "astilbe/desktop.ini",
    "astilbe/.ipynb_checkpoints/x-checkpoint.jpg",
    ".ipynb_checkpoints/x-checkpoint.jpg",
    "__MACOSX/astilbe/x.jpg",
    "astilbe/__MACOSX/x.jpg",
    ".git/x.jpg",
    "astilbe/notes.txt",
    "README.md",
    "x.jpg",
    "astilbe/x.jpg.part",
]


@pytest.mark.parametrize("junk", JUNK)
def test_junk_is_ignored_without_a_word(photo_folder, caplog, junk):
    """P14, I06-I08: even where it is a real photo."""
    before = names(photo_folder)
    photo(photo_folder / junk)
    assert names(photo_folder) == before and warnings_in(caplog) == []


def test_empty_class_folder_gets_one_warning(photo_folder, caplog):
    """I04: it is no class."""
    before = names(photo_folder)
    (photo_folder / "bluebell").mkdir()
    assert names(photo_folder) == before
    (warning,) = warnings_in(caplog)
    assert str(photo_folder / "bluebell") in warning


@pytest.mark.parametrize("name", ["x.JPG", "x.JPEG", "x.Png", "x.webp", "x.bmp"])
def test_extensions_in_any_case(photo_folder, name):
    """I13, I26: the name only says that it is a photo."""
    photo(photo_folder / "astilbe" / name)
    assert (f"astilbe/{name}", 0) in names(photo_folder)[1]
    assert len(pixels(photo_folder)[0]) == 31


def test_folder_named_like_a_photo(photo_folder):
    """I24"""
    before = names(photo_folder)
    (photo_folder / "astilbe" / "x.jpg").mkdir()
    assert names(photo_folder) == before


def test_loop_of_links_ends(photo_folder):
    """I22: each real file once."""
    before = names(photo_folder)
    os.symlink(photo_folder / "astilbe", photo_folder / "astilbe" / "loop")
    os.symlink(photo_folder, photo_folder / "bellflower" / "up")
    assert names(photo_folder) == before


def test_names_of_any_script_change_no_bit(photo_folder, tmp_path):
    """I25: spaces, accents, Chinese, emoji and quotes, in files, classes and path."""
    strange = tmp_path / 'Fotos d\'été "花" 🌸'
    for path, _ in find_photos(photo_folder)[1]:
        target = strange / f"{path.parent.name} ü花" / f"{path.stem} 'é\" 🌷.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for ours, plain in zip(pixels(strange), pixels(photo_folder), strict=True):
        assert torch.equal(ours, plain)


def test_names_that_are_no_text_change_no_bit(photo_folder):
    """I25: as an archive from a system with another encoding leaves them."""
    before = pixels(photo_folder)
    for path, _ in find_photos(photo_folder)[1]:
        os.rename(path, os.fsencode(path.with_suffix("")) + b"\xe9\xff.png")
    assert all(map(torch.equal, pixels(photo_folder), before))


@pytest.mark.parametrize("order", range(5))
def test_order_of_creation_changes_no_bit(photo_folder, tmp_path, order):
    """P17: other order, other times: same list, same split, same bits."""
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


# Nothing to train on ----------------------------------------------------------


def load(root, **options):
    return create_flower_dataloaders(8, root, 8, 8, **options)


@pytest.fixture(params=["missing", "empty", "only junk", "empty classes"])
def barren(request, tmp_path):
    """A folder without a photo -> (path, what it is)."""
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


def test_flowers_are_drawn_where_asked_for(barren, caplog):
    """I01, I02: one warning, which says how to get the photos."""
    root, _ = barren
    training, validation = load(root, synthetic_if_empty=True)
    assert training.dataset.metadata["source"] == "drawn flowers"
    assert len(training.dataset) == 4 * len(validation.dataset) == 1920
    (warning,) = warnings_in(caplog)
    assert str(root) in warning and "python -m tools.get_flowers" in warning


def test_flowers_are_never_drawn_unasked(barren):
    """I01-I03: a folder that was named is used or refused."""
    root, what = barren
    with pytest.raises(UserError) as caught:
        load(root)
    words = {"missing": "is not a folder", "empty classes": "no photos"}
    assert words.get(what, "no class folder") in str(caught.value)
    assert str(root) in str(caught.value)
    assert isinstance(caught.value, UsageError) == (what == "missing")


def test_flowers_are_never_drawn_in_place_of_bad_photos(tmp_path):
    for number in range(3):
        photo(tmp_path / "rose" / f"{number}.jpg")
        (tmp_path / "rose" / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="100 % unreadable"):
        load(tmp_path, synthetic_if_empty=True)


@pytest.mark.parametrize("draw", [False, True])
def test_photos_without_a_class_folder(tmp_path, draw):
    """I05: the message explains the layout."""
    photo(tmp_path / "x.jpg")
    with pytest.raises(UserError, match="no class folder; put each class into"):
        load(tmp_path, synthetic_if_empty=draw)


def test_root_is_a_file(tmp_path):
    """I01"""
    photo(tmp_path / "x.jpg")
    with pytest.raises(UsageError, match="is not a folder"):
        load(tmp_path / "x.jpg", synthetic_if_empty=True)
