"""Processes that are killed while they save."""

import itertools
import mmap
import os
import random
import signal
import stat
import time

import torch
from torch import nn

from utils import files
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.cli import UserError
from utils.files import prepare_target

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


def in_child(work, seconds=60):
    """Fork; the child does the work, its exit code says whether it could -> pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(seconds)
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
        if "rb" in args:  # what is read is not watched
            return open(*args)
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


CALLS = ["open", "write", "flush", "fsync", "replace", "open_folder", "fsync_folder"]


def kill_at_every_call(monkeypatch, path, old):
    """SIGKILL one save before and after its N-th call, N = 1, 2, ... -> versions.

    The last entry is that of the save which no signal hit.
    """
    found = []
    for point in itertools.count(1):
        path.unlink(missing_ok=True)
        prepare_target(path)
        if old:
            save_checkpoint(path, Version(old))

        def save(point=point):
            countdown = itertools.count(1)

            def step(_):
                if next(countdown) == point:
                    os.kill(os.getpid(), signal.SIGKILL)

            watch(monkeypatch, step)
            save_checkpoint(path, Version(NEW))

        _, status = os.waitpid(in_child(save), 0)
        found.append(version_of(path))
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            return found


def random_kills(path, save, trials, size=100_000):
    """SIGKILL children that save in a loop -> ([(old, found)], kills inside a save)."""
    rng, shared, found, inside = random.Random(0), mmap.mmap(-1, 2), [], 0
    for trial in range(trials):
        if trial % 2:
            path.unlink(missing_ok=True)
        prepare_target(path)
        assert not path.with_name(path.name + ".tmp").exists()
        old, shared[:] = version_of(path), b"\0\0"

        def save_for_ever():
            for version in itertools.count(1):
                model = Version(version, size)
                shared[:] = b"\1\1"  # ready, and saving
                save(path, model)
                shared[1] = 0

        pid = in_child(save_for_ever)
        for _ in range(20_000):
            if shared[0]:
                break
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        inside += shared[1]
        found.append((old, version_of(path)))
    return found, inside
