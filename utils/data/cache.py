"""A cache of decoded photos in a file, for sets that are larger than memory."""

# Two files: NAME.npy is uint8 (N, 3, H, W), the readable photos in their order, then
# zeros in place of the others. NAME.json says what it was made of, with a checksum of
# each file. Both are written whole; those that do not match are built again.

import errno
import hashlib
import io
import json
import logging
import math
import os
import shutil
import weakref
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
from filelock import FileLock, Timeout

from utils.cli import UserError
from utils.cli.progress import progress
from utils.data.duplicates import near_duplicates
from utils.data.photos import MAX_BAD, decode_each, leave_out
from utils.files import (
    open_regular,
    prepare_target,
    read_regular,
    replace_file,
    writing,
)

IN_MEMORY = 2**29  # bytes of decoded photos, above which a cache is always used
PART, READ = 1024, 2**24  # photos decoded, and bytes checked, at a time
DECODING = 1  # version of what `decode` and `near_duplicates` make of photos
REMEDY = "free the space, or name another folder with --cache DIR"

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """The photos of a folder at one size."""

    root: Path
    paths: list  # of the photos
    names: list  # the same, relative to root
    size: tuple  # (width, height)

    @property
    def shape(self):
        """The shape of the array, unreadable photos included: (N, 3, H, W)."""
        return len(self.paths), 3, *self.size[::-1]


class Unusable(Exception):
    """A cache that must be built; its text is the reason, empty if there is none."""


# Reading ------------------------------------------------------------------------------


class PhotoMap:
    """Photos in a file, uint8 (N, 3, H, W), which are read as they are indexed.

    array: the numpy.memmap of the whole file; handle: its descriptor; rows: (N,) of
    int64, those that belong here. An index of any kind returns a tensor in memory, as
    that of a tensor would; raises UserError if the file cannot be read any more.
    """

    def __init__(self, path, array, handle, rows):
        self.path, self.array, self.handle, self.rows = path, array, handle, rows

    def __len__(self):
        return len(self.rows)

    @property
    def shape(self):
        """The shape as of a tensor: (N, 3, H, W)."""
        return torch.Size((len(self), *self.array.shape[1:]))

    def __getitem__(self, index):
        rows = self.rows[index]
        images = self.read(rows.flatten().numpy())
        return torch.from_numpy(images).view(*rows.shape, *self.array.shape[1:])

    def read(self, rows):
        """Return these rows of the file: (N,) -> uint8 (N, 3, H, W)."""
        # Where the system has it by a call for each row: it is faster than through the
        # map, whose pages count as memory of this process once they are touched, and an
        # error of the disk does not kill the process.
        if not hasattr(os, "preadv"):
            return np.asarray(self.array[rows])
        images = np.empty((len(rows), *self.array.shape[1:]), np.uint8)
        places = (self.array.offset + rows * self.array[0].nbytes).tolist()
        # In the order of the file, which is the fastest for a disk.
        for number in rows.argsort().tolist():
            image = images[number]
            try:
                if os.preadv(self.handle, (image,), places[number]) < image.nbytes:
                    raise OSError(errno.EIO, "it was cut off")
            except OSError as error:
                raise UserError(
                    f"cannot read {self.path}: {error.strerror}; start again, or name "
                    "another folder with --cache DIR"
                ) from None
        return images

    def split(self, size):
        """Yield tensors of `size` photos, as that of a tensor would."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def subset(self, rows):
        """Return the PhotoMap of these rows, which are not read."""
        return PhotoMap(self.path, self.array, self.handle, self.rows[rows])


def subset(images, rows):
    """Return the images of these rows: of a tensor a copy, of a PhotoMap unread."""
    return images[rows] if isinstance(images, torch.Tensor) else images.subset(rows)


def npy_header(shape):
    """Return the first bytes of a .npy file of uint8."""
    header, facts = io.BytesIO(), {"descr": "|u1", "fortran_order": False}
    np.lib.format.write_array_header_1_0(header, facts | {"shape": shape})
    return header.getvalue()


def open_cache(path, source, key):
    """Return (PhotoMap of the readable photos, facts); raises Unusable."""
    facts = read_facts(path.with_suffix(".json"), key)
    # A photo that can be read again, such as after `chmod`, has the same size and time.
    errors = decode_each([source.paths[i] for i in facts["bad"]], *source.size)
    if not all(why for _, why in errors):
        raise Unusable("photos that could not be read can be read now")
    reasons = [why for _, why in errors]
    photos = map_photos(path, source.shape, facts["pixels"])
    return photos.subset(slice(len(source.paths) - len(reasons))), facts, reasons


def map_photos(path, shape, expected):
    """Return the PhotoMap of a whole file; expected: the checksum of its photos."""
    # Raises Unusable.
    header, size = npy_header(shape), math.prod(shape)
    try:
        with open_regular(path, limit=len(header) + size) as file:
            # Read, not mapped, since mapped pages count as memory of this process.
            if file.read(len(header)) != header:
                raise Unusable("its header is damaged")
            if os.fstat(file.fileno()).st_size != len(header) + size:
                raise Unusable("it is cut off")
            if checksum(file) != expected:
                raise Unusable("its photos are damaged")
            # Not copy-on-write, for which the system wants as much memory as the file.
            array = np.memmap(file, np.uint8, "r", len(header), shape)
            handle = os.dup(file.fileno())
    except OSError as error:
        raise Unusable(f"it cannot be read: {error.strerror}") from None
    weakref.finalize(array, os.close, handle)
    return PhotoMap(path, array, handle, torch.arange(shape[0]))


def checksum(file):
    """Return the CRC-32 of the rest of an open file."""
    found, buffer = 0, memoryview(bytearray(READ))
    while count := file.readinto(buffer):
        found = zlib.crc32(buffer[:count], found)
    return found


def read_facts(path, key):
    """Return what the JSON of a cache says; raises Unusable."""
    if not path.exists() and not path.with_suffix(".npy").exists():
        raise Unusable
    try:
        content = json.loads(read_regular(path))
        facts, found = content["facts"], content["checksum"]
    except FileNotFoundError:
        raise Unusable("its building was interrupted") from None
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        raise Unusable(f"{path.name} is damaged") from None
    if found != facts_checksum(facts):
        raise Unusable(f"{path.name} is damaged")
    if facts["key"] != key:
        raise Unusable("the photos have changed")
    return facts


def facts_checksum(facts):
    """Return the CRC-32 of plain types."""
    return zlib.crc32(json.dumps(facts, sort_keys=True).encode())


# Building -----------------------------------------------------------------------------


def photos_key(source):
    """Return a hash of the photos' names, file sizes and times, and of their size."""
    digest = hashlib.sha256(f"{DECODING} {PIL.__version__} {source.size}\n".encode())
    for path, name in zip(source.paths, source.names, strict=True):
        try:
            found = os.stat(path)
            facts = found.st_size, found.st_mtime_ns
        except OSError:  # it is one of the unreadable photos
            facts = None
        digest.update(os.fsencode(f"{name}\0{facts}\n"))
    return digest.hexdigest()


def build(path, source, key):
    """Decode all photos into a cache, in parts; raises OSError or UserError."""
    # UserError: more photos are unreadable than may be. Not a map, which kills the
    # process when the disk is full.
    shape, bad, found = source.shape, [], 0
    one = shape[1] * shape[2] * shape[3]  # bytes of a photo
    header = npy_header(shape)
    if shutil.disk_usage(path.parent).free < len(header) + len(source.paths) * one:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def chunks():
        nonlocal found
        yield header
        # A part takes at most as much memory as a buffer, or one photo.
        step = max(1, min(PART, READ // one))
        for start in progress(range(0, shape[0], step), "photos"):
            part = source.paths[start : start + step]
            for place, (image, why) in enumerate(decode_each(part, *source.size)):
                if image is None:
                    bad.append((start + place, why))
                    continue
                content = image.numpy().tobytes()
                found = zlib.crc32(content, found)
                yield content
        if len(bad) > MAX_BAD * shape[0]:
            leave_out([(source.paths[i], why) for i, why in bad], shape[0], False)
        for _ in bad:
            found = zlib.crc32(bytes(one), found)
            yield bytes(one)

    # The old description belongs to the old photos.
    description = prepare_target(path.with_suffix(".json"), everywhere=True)
    description.unlink(missing_ok=True)
    replace_file(prepare_target(path, everywhere=True), chunks(), everywhere=True)
    images = map_photos(path, shape, found).subset(slice(shape[0] - len(bad)))
    facts = {"key": key, "pixels": found, "bad": [i for i, _ in bad]}
    facts["duplicates"] = [sorted(group) for group in near_duplicates(images)]
    content = {"facts": facts, "checksum": facts_checksum(facts)}
    replace_file(description, [json.dumps(content).encode()], everywhere=True)


def default_folder():
    """Return the folder of caches where none is named: the user's."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        raise UserError(
            "no home folder for the cache of photos; name a folder with --cache DIR"
        ) from None
    return Path(home, "nn-lab")


@contextmanager
def building(path):
    """Hold the lock of a cache inside; a kill frees it."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process builds %s: waiting for it", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def open_or_build(path, source, key):
    """Return what `open_cache` does, of a cache that is built if there is none."""
    with building(path):
        try:
            return open_cache(path, source, key)
        except Unusable as reason:
            if str(reason):
                log.warning("%s is not used, %s: it is built again", path, reason)
        log.info("decoding %d photos into %s, once", len(source.paths), path)
        try:
            build(path, source, key)
            return open_cache(path, source, key)
        except Unusable as reason:  # of a disk that fails, or photos that came back
            raise UserError(
                f"{path} cannot be used: {reason or 'it is missing'}; run "
                "the command again, or name another folder with --cache DIR"
            ) from None


def cached_photos(source, strict=False, folder=None):
    """Return (PhotoMap, indices (N,) of readable paths, groups of near-duplicates).

    folder: of the cache, by default the user's; the cache is built where there is none,
    or it is damaged or of other photos. Groups are those of `near_duplicates`.

    Raises:
        UserError: if the cache cannot be written; if more than a tenth of the photos,
            or with `strict` any, cannot be read.
    """
    # One file for each folder and size.
    place = hashlib.sha256(os.fsencode(os.path.realpath(source.root))).hexdigest()[:12]
    name = "photos_{}x{}_{}.npy".format(*source.size, place)
    path, key = Path(folder or default_folder(), name), photos_key(source)
    try:
        images, facts, reasons = open_cache(path, source, key)
    except Unusable:
        with writing(path, REMEDY):
            path.parent.mkdir(parents=True, exist_ok=True)
            images, facts, reasons = open_or_build(path, source, key)
    # The unreadable photos are reported as if all had been decoded now.
    if bad := facts["bad"]:
        named = [(source.paths[i], why) for i, why in zip(bad, reasons, strict=True)]
        leave_out(named, len(source.paths), strict)
    kept = torch.ones(len(source.paths), dtype=torch.bool)
    kept[bad] = False
    return images, kept.nonzero()[:, 0], [set(group) for group in facts["duplicates"]]
