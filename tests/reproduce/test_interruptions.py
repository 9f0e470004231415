"""A call that is interrupted goes on from where it was, to the same files."""

import os
import signal
import time

import pytest

from tests.helpers.forks import wait
from tests.helpers.reproduce import (
    TRAINING,
    edit,
    make,
    manifest_of,
    start,
    write_project,
)
from utils.cli import UserError

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/stat"), reason="needs the files of Linux in /proc"
)

GUARD = 300  # seconds, against a test that hangs


@pytest.fixture
def root(tmp_path):
    """A project of a training and a step after it."""
    return write_project(tmp_path / "project", TRAINING)


@pytest.fixture
def expected(tmp_path):
    """The files that a call without an interruption makes."""
    root = write_project(tmp_path / "whole", TRAINING)
    (root / "go").touch()
    assert make(root) == ["train", "after"]
    return made(root)


def made(root):
    """Return the content of all files that the steps make."""
    names = ("models/Best_x.pkl", "log/train.out", "after.txt")
    return [(root / name).read_bytes() for name in names]


def wait_for(is_there):
    """Wait until is_there() returns something, and return it."""
    end = time.monotonic() + GUARD
    while not (found := is_there()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def interrupted(root, number):
    """Send a signal to a call in the middle of its training -> its exit code."""
    waiting, call = root / "waiting", start(root)
    wait_for(lambda: waiting.exists() or has_ended(call))
    child = int(waiting.read_text())
    os.kill(call, number)
    code = wait(call, GUARD)
    wait_for(lambda: has_ended(child))
    waiting.unlink()
    return code


def has_ended(number):
    """Return whether no process of this number runs; a zombie has ended."""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_the_same_call_goes_on(root, expected, number):
    """The training gets it and is waited for; then --resume gives the same files."""
    assert interrupted(root, number) == 128 + number
    stderr = (root / "err.txt").read_text()
    assert stderr.splitlines()[-1] == "the same call goes on from here"
    assert (root / "signal.txt").read_text() == str(int(number))
    step = manifest_of(root)["steps"]["train"]
    assert step["state"] == "started" and step["seconds"] >= 0
    (root / "go").touch()
    assert make(root, "--parts", 1) == ["resumed", "after"]
    assert made(root) == expected
    assert make(root, "--parts", 1) == []


def test_a_kill_takes_the_training_with_it(root, expected):
    """No signal can be passed on, but the system sends one."""
    assert interrupted(root, signal.SIGKILL) == -signal.SIGKILL
    assert (root / "signal.txt").read_text() == str(int(signal.SIGTERM))
    (root / "go").touch()
    assert make(root) == ["resumed", "after"]
    assert made(root) == expected


def kill(root):
    """Interrupt a call, and let the next one run to its end."""
    interrupted(root, signal.SIGTERM)
    (root / "go").touch()


def test_a_state_of_other_code_is_not_continued(root):
    kill(root)
    edit(root / "train.py", '"-".join', '"+".join')
    assert make(root) == ["train", "after"]


def test_an_older_state_is_not_continued(root):
    """That of a training that ended before, though this step was started."""
    kill(root)
    assert manifest_of(root)["steps"]["train"]["state_before"] is None
    # As if the call had been killed before the training wrote a state of its own.
    make(root)
    old = (root / "models" / "Last_x.pth").read_text()
    (root / "go").unlink()
    edit(root / "train.py", "resumed = ", "sys.exit(3)\nresumed = ")
    with pytest.raises(UserError, match="ended with exit code 3"):
        make(root)
    assert manifest_of(root)["steps"]["train"]["state"] == "started"
    (root / "go").touch()
    edit(root / "train.py", "sys.exit(3)\n", "")
    assert (root / "models" / "Last_x.pth").read_text() == old
    assert make(root) == ["train"]


def test_a_state_that_fails_is_not_tried_again(root):
    """The step that could not be continued begins anew at the next call."""
    kill(root)
    edit(root / "train.py", "epochs = last", "assert not resumed\nepochs = last")
    # The code is other code now; as if it had been before.
    path = root / "log" / "manifest.json"
    path.unlink()
    (root / "go").unlink()
    kill(root)
    with pytest.raises(UserError, match="train failed: .*AssertionError"):
        make(root)
    assert "train" not in manifest_of(root)["steps"]
    assert make(root) == ["train", "after"]


def test_an_interrupted_force_goes_on(root):
    """It does not begin anew at every call."""
    (root / "go").touch()
    make(root)
    edit(root / "work.py", "print(", 'sys.exit("bad")\nprint(')
    with pytest.raises(UserError, match="step after failed"):
        make(root, "--force")
    edit(root / "work.py", 'sys.exit("bad")\n', "")
    assert make(root, "--force") == ["after"]
    assert make(root, "--force") == ["train", "after"]
