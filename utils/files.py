"""Files that are written whole or not at all, and read only if they are regular."""

# A file is written under a temporary name in its own folder, forced to disk, and
# renamed. Where it is a symbolic link, the file that the link leads to is replaced.
# Of the processes of torchrun only rank 0 writes; for the others nothing happens, but
# for files that each host has for itself: `everywhere`.

import contextlib
import csv
import errno
import io
import json
import logging
import os
import stat
import tempfile
import time
from pathlib import Path

import numpy as np

from utils.cli import UserError, leads

MAX_BYTES = 2 * 10**9  # of a file that is read into memory

log = logging.getLogger(__name__)

# Reading -----------------------------------------------------------------------


def open_regular(path, limit=MAX_BYTES):
    """Open a regular file of at most `limit` bytes for reading, in binary."""
    # Raises OSError. A FIFO would block, and a device may never end; both are refused
    # before anything is read.
    # Windows has no O_NONBLOCK, and translates line ends without O_BINARY.
    modes = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, os.O_RDONLY | modes)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
        os.close(handle)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        what = "too large" if stat.S_ISREG(found.st_mode) else "not a regular file"
        raise OSError(errno.EINVAL, what, str(path))
    return open(handle, "rb")


def read_regular(path):
    """Return the bytes of a regular file; raises OSError."""
    with open_regular(path) as file:
        return file.read()


# Writing -----------------------------------------------------------------------


@contextlib.contextmanager
def writing(path, remedy="free the space or choose another place"):
    """Turn an OSError inside into a UserError that names the path."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; {remedy}") from None


def prepare_target(path, everywhere=False):
    """Make the folder of `path`, remove the rest of a killed run; return the path."""
    # Raises UserError if the file could not be saved later.
    path = Path(path)
    if not (everywhere or leads()):
        return path
    prepare_folder(path.parent)
    if path.is_dir():
        raise UserError(f"{path} is a folder; move it away, the file goes there")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file; name another")
    temporary(path).unlink(missing_ok=True)
    return path


def prepare_folder(folder):
    """Make the folder and prove that files can be written into it."""
    # Raises UserError if they cannot. The file of the proof has no name on Linux, so
    # that a kill leaves nothing.
    folder = Path(folder)
    if not leads():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except FileExistsError:
        raise UserError(f"{folder} is not a folder; move that file away") from None
    except OSError as error:
        raise UserError(
            f"cannot write into {folder}: {error.strerror}; name another folder"
        ) from None


def temporary(path):
    """Return the name under which `path` is written before it replaces the old one."""
    path = Path(os.path.realpath(path))
    return path.with_name(path.name + ".tmp")


def write_file(path, content):
    """Write bytes and log the path; a fault leaves the old or the new file."""
    with writing(prepare_target(path)):
        replace_file(path, [content])
    log.info("wrote %s", path)


def write_json(path, content):
    """Write plain types as indented JSON; a fault leaves the old or the new file."""
    write_file(path, (json.dumps(content, indent=1) + "\n").encode())


def read_csv(path):
    """Return the rows of a CSV file, dictionaries of text; raises UserError."""
    try:
        lines = read_regular(path).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"cannot read {path}: {why}; train again") from None
    return list(csv.DictReader(lines))


def read_json(path):
    """Return the content of a JSON file; raises UserError."""
    try:
        return json.loads(read_regular(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; name a file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error!s:.80}; make it again") from None


def replace_file(path, chunks, everywhere=False):
    """Write a temporary file, force it to disk, then rename it to `path`."""
    # chunks: an iterable of bytes, written one after the other.
    if not (everywhere or leads()):
        return
    path, part = os.path.realpath(path), temporary(path)
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
    flush_folder(part.parent)


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
    with writing(path, "name another place with --save"):
        replace_file(path, npy_chunks(batches, count))
    log.info("wrote %s", path)


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


def csv_log(path, rows=()):
    """Return a function that appends a row to the CSV file `path`."""
    # A row is a dictionary; `seconds` since the last row are added, if it has none. Its
    # `epoch` counts from 0, and that of the file from 1 (docs/measures.md). rows: those
    # of a resumed run, at the start of the file. The columns are those of the first
    # row, and only then an older file is replaced. Without a path nothing is written.
    if path is None or not leads():
        return lambda row: None
    path, start, columns = prepare_target(path), time.perf_counter(), None

    # The first row decides the columns.
    def write_row(row):
        nonlocal start, columns
        now = time.perf_counter()
        row.setdefault("seconds", round(now - start, 3))
        start = now
        mode = "a" if columns else "w"
        with (
            writing(path),
            open(path, mode, newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, columns or list(row), lineterminator="\n")
            if not columns:
                writer.writeheader()
            writer.writerow(row | {"epoch": row["epoch"] + 1})
        columns = writer.fieldnames

    for row in rows:
        write_row(row)
    return write_row
