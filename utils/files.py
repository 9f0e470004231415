"""Files that are written whole or not at all."""

# A file is written under a temporary name in its own folder, forced to disk, and
# renamed.

import contextlib
import csv
import io
import json
import os
import time
from pathlib import Path

import numpy as np

from utils.cli import UserError


def prepare_target(path):
    """Make the folder of `path`, remove the rest of a killed run; return the path."""
    # Raises UserError if the file could not be saved later.
    path = Path(path)
    prepare_folder(path.parent)
    if path.is_dir():
        raise UserError(f"{path} is a folder; move it away, the file goes there")
    temporary(path).unlink(missing_ok=True)
    return path


def prepare_folder(folder):
    """Make the folder and prove that files can be written into it."""
    # Raises UserError if they cannot.
    folder = Path(folder)
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except FileExistsError:
        raise UserError(f"{folder} is not a folder; move that file away") from None
    except OSError as error:
        raise UserError(
            f"cannot write into {folder}: {error.strerror}; name another with --out"
        ) from None


def temporary(path):
    """Return the name under which `path` is written before it replaces the old one."""
    return path.with_name(path.name + ".tmp")


def write_json(path, content):
    """Write plain types as indented JSON; a fault leaves the old or the new file."""
    replace_file(Path(path), [(json.dumps(content, indent=1) + "\n").encode()])


def replace_file(path, chunks):
    """Write a temporary file, force it to disk, then rename it to `path`."""
    # chunks: an iterable of bytes, written one after the other.
    part = temporary(path)
    try:
        with open(part, "xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        if not isinstance(error, FileExistsError):  # then it is another run's
            with contextlib.suppress(OSError):  # the first error is the reason
                part.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(folder):
    """Force the folder's list of names to disk, where the system allows it."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def save_images(path, batches, count):
    """Save `count` images as one .npy file of uint8 (count, H, W, 3).

    batches: an iterator of images (B, 3, H, W) in [0, 1]; each is written before the
    next but one is generated.

    Raises:
        UserError: if the file cannot be written.
    """
    path = prepare_target(path)
    try:
        replace_file(path, npy_chunks(batches, count))
    except OSError as error:
        raise UserError(
            f"cannot save {path}: {error.strerror}; name another place with --save"
        ) from None


def npy_chunks(batches, count):
    """Yield the bytes of a .npy file: its header, then the pixels of each batch."""
    # Not a memory map, which kills the process when the disk is full.
    header = None
    for images in batches:
        pixels = (images.detach().cpu().float().clamp(0, 1) * 255).round().byte()
        pixels = pixels.permute(0, 2, 3, 1).numpy()  # (B, H, W, 3)
        if header is None:
            header, shape = io.BytesIO(), (count, *pixels.shape[1:])
            facts = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(header, facts)
            yield header.getvalue()
        yield pixels.tobytes()


def csv_log(path):
    """Return a function that appends a row to the CSV file `path`."""
    # A row is a dictionary; `seconds` since the last row are added. The columns are
    # those of the first row, and only then an older file is replaced. Without a path
    # nothing is written.
    start, columns = time.perf_counter(), None

    # The first row decides the columns.
    def write_row(row):
        nonlocal start, columns
        now = time.perf_counter()
        row, start = {**row, "seconds": round(now - start, 3)}, now
        with open(path, "a" if columns else "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns or list(row), lineterminator="\n")
            if not columns:
                writer.writeheader()
            writer.writerow(row)
        columns = writer.fieldnames

    if path is None:
        return lambda row: None
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return write_row
