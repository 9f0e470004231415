"""Copies of a completion, in scratch folders."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import matplotlib

from utils.cli import UserError

LEFT_OUT = {
    *(".git", "__pycache__", ".venv", "venv", "env", "node_modules", ".idea"),
    *(".ipynb_checkpoints", ".pytest_cache", ".ruff_cache", ".vscode"),
}
DATA = {".jpg", ".jpeg", ".webp", ".zip", ".tar", ".gz", ".7z", ".rar"}  # left out
MAX_COPY = 10**9  # bytes, of all files of a completion that are copied
MAX_FILES = 20_000


def is_left_out(folder):
    """Return whether a folder is a cache, or holds photos and no code."""
    photos = folder.name.startswith("flowers") and not any(folder.glob("*.py"))
    return photos or folder.name in LEFT_OUT


def copy_completion(source, target):
    """Copy a completion's regular files, without photos, caches and links.

    Raises:
        UserError: if they are too many, or a file cannot be read.
    """
    size = count = 0
    for folder, names, files in os.walk(source):
        names[:] = [name for name in names if not is_left_out(Path(folder, name))]
        place = target / os.path.relpath(folder, source)
        place.mkdir(parents=True, exist_ok=True)
        for path in (Path(folder, name) for name in files):
            if path.is_symlink() or not path.is_file() or path.suffix.lower() in DATA:
                continue
            size, count = size + path.stat().st_size, count + 1
            if size > MAX_COPY or count > MAX_FILES:
                raise UserError(
                    f"{source} holds more than {MAX_FILES} files or {MAX_COPY} bytes "
                    "beside its photos; name the folder of the completion alone"
                )
            try:
                shutil.copyfile(path, place / path.name)
            except OSError as error:
                raise UserError(f"cannot copy {path}: {error.strerror}") from None


@contextmanager
def scratch_folder(source):
    """Make a folder with a copy of a completion, and remove it in the end."""
    with tempfile.TemporaryDirectory(
        prefix="doctor-", ignore_cleanup_errors=True
    ) as name:
        root = Path(os.path.realpath(name))
        for part in ("home", "tmp", "matplotlib"):
            (root / part).mkdir()
        # Without matplotlib's list of fonts each process would search for fonts.
        for path in Path(matplotlib.get_cachedir()).glob("fontlist-*.json"):
            shutil.copy(path, root / "matplotlib")
        copy_completion(Path(source), root / "completion")
        yield root
