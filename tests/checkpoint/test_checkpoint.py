"""Saving weights: after any fault the file is the old one or the new one."""

import itertools
import mmap
import os
import random
import signal
import time

import pytest
import torch

from tests.helpers.saving import (
    NEW,
    OLD,
    Version,
    in_child,
    save_in_place,
    version_of,
    watch,
)
from utils import checkpoint, files
from utils import train as training
from utils.checkpoint import save_checkpoint
from utils.files import prepare_target

CALLS = ["open", "write", "flush", "fsync", "replace", "open_folder", "fsync_folder"]

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


# Killed -----------------------------------------------------------------------


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


@pytest.mark.parametrize("old", [None, OLD])
def test_kill_at_every_call_leaves_old_or_new(monkeypatch, path, old):
    """P1a, C01, C02: two points for each of seven calls; the rename decides."""
    found = kill_at_every_call(monkeypatch, path, old)
    before = 2 * CALLS.index("replace") + 1
    assert found == [old] * before + [NEW] * (2 * len(CALLS) - before + 1)
    prepare_target(path)
    assert list(path.parent.iterdir()) == [path]  # the next start cleans up


def test_kill_at_every_call_catches_a_save_in_place(monkeypatch, path):
    monkeypatch.setattr(files, "open", open, raising=False)
    monkeypatch.setattr(checkpoint, "replace_file", save_in_place)
    assert "torn" in kill_at_every_call(monkeypatch, path, OLD)


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


def test_sixty_random_kills_leave_old_or_new(path):
    """P1b, C03: never torn, and never nothing where there was something."""
    found, inside = random_kills(path, save_checkpoint, 60)
    torn = [(old, new) for old, new in found if new == "torn" or (old and not new)]
    assert torn == [] and inside >= 10


def test_random_kills_catch_plain_torch_save(path):
    def plain(path, model):
        torch.save(model.state_dict(), path)

    found, _ = random_kills(path, plain, 12)
    assert [new for _, new in found].count("torn") >= 2


def test_epoch_line_follows_the_saved_best(monkeypatch, path):
    """P1, P2: write, fsync, rename, fsync of the folder, and then the line."""
    steps, model = [], Version(0.5)
    watch(monkeypatch, steps.append)
    monkeypatch.setattr(
        training, "print", lambda *_, **__: steps.append("line"), raising=False
    )
    batches = [(torch.ones(2, 3), None)]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    training.train(
        optimizer, lambda _: 0.1, model, batches, batches, 1, 1, "cpu", path.parent
    )
    wanted = [f"{when} {call}" for call in CALLS for when in ("before", "after")]
    assert steps[steps.index("before open") :] == [*wanted, "line"]


def test_version_of_sees_a_mixture(path):
    mixed = Version(OLD)
    mixed.last.data[-1] = NEW
    save_checkpoint(path, mixed)
    assert version_of(path) == "torn"
