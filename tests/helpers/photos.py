"""Folders of numbered photos."""

from PIL import Image

from utils.data.photos import find_photos
from utils.data_processor import create_flower_dataloaders


def numbered_photos(root, count, size=(8, 8)):
    """Save photos of one colour each: photo n is (n, 255 - n, 0) all over."""
    for number in range(count):
        path = root / "abc"[number % 3] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number, 255 - number, 0)).save(path)
    return root


def load(root, batch_size=4, width=8, height=8, **options):
    return create_flower_dataloaders(batch_size, root, width, height, **options)


def names(root):
    """Return the class names, and [(path below root, label)] of the photos."""
    classes, samples = find_photos(root)
    return classes, [(path.relative_to(root).as_posix(), n) for path, n in samples]


def photo(path):
    """Save a small JPEG under any name; make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path, "JPEG")


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
