"""Processes that are killed while they save."""

import os
import signal
import stat

import torch
from torch import nn

from utils import files
from utils.checkpoint import load_checkpoint
from utils.cli import UserError

OLD, NEW = 7, 8  # versions


class Version(nn.Module):
    """Weights that all hold one number, so that a mixture of two would show."""

    name = "AE"

    def __init__(self, number, size=1000):
        super().__init__()
        self.first = nn.Parameter(torch.full((size,), float(number)))
        self.last = nn.Parameter(torch.full((size,), float(number)))

    def forward(self, x):
        return x * self.first.mean()


def version_of(path):
    """Return the version in the file, None where there is none, or "torn"."""
    if not path.exists():
        return None
    try:
        weights, _ = load_checkpoint(path)
    except UserError:
        return "torn"
    numbers = torch.cat(list(weights.values())).unique().tolist()
    return numbers[0] if len(numbers) == 1 and len(weights) == 2 else "torn"


def save_in_place(path, chunks):
    """The mutant that every harness must catch: the old file is gone at once."""
    with files.open(path, "wb") as file:
        file.write(b"".join(chunks))
        file.flush()
        os.fsync(file.fileno())


def in_child(work):
    """Fork; the child does the work, its exit code says whether it could -> pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(60)
            torch.set_num_threads(1)  # the parent's other threads are not in the child
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def watch(patch, step):
    """Call step("before write"), step("after write") and so on during every save."""

    def watched(name, function):
        def call(*args, **kwargs):
            step(f"before {name}")
            result = function(*args, **kwargs)
            step(f"after {name}")
            return result

        return call

    def opened(*args):
        file = watched("open", open)(*args)
        return WatchedFile(file, watched)

    def fsync(handle):
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        watched("fsync_folder" if folder else "fsync", real_fsync)(handle)

    real_fsync = os.fsync
    patch.setattr(files, "open", opened, raising=False)
    patch.setattr(os, "fsync", fsync)
    patch.setattr(os, "replace", watched("replace", os.replace))
    patch.setattr(os, "open", watched("open_folder", os.open))


class WatchedFile:
    """A file whose write and flush are watched."""

    def __init__(self, file, watched):
        self.file, self.fileno = file, file.fileno
        self.write = watched("write", file.write)
        self.flush = watched("flush", file.flush)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()
