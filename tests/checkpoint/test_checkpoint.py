"""Saving weights: after any fault the file is the old one or the new one."""

import pytest
import torch

from tests.helpers.saving import (
    CALLS,
    NEW,
    OLD,
    Version,
    kill_at_every_call,
    random_kills,
    save_in_place,
    version_of,
    watch,
)
from utils import files
from utils import train as training
from utils.checkpoint import save_checkpoint, saving
from utils.files import prepare_target

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


# Killed -----------------------------------------------------------------------


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
    monkeypatch.setattr(saving, "replace_file", save_in_place)
    assert "torn" in kill_at_every_call(monkeypatch, path, OLD)


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
    """P1, P2, C04: write, fsync, rename, fsync of the folder, and then the line.

    Only after the line is the state written that --resume restores.
    """
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
    # The state is also written at the start.
    assert steps[steps.index("before open") :] == [*wanted, *wanted, "line", *wanted]


def test_version_of_sees_a_mixture(path):
    mixed = Version(OLD)
    mixed.last.data[-1] = NEW
    save_checkpoint(path, mixed)
    assert version_of(path) == "torn"
