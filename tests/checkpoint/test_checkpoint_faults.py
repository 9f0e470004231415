"""Saving where the system refuses: loud, and the old file is unharmed."""

import errno
import os
import resource
import shutil
import subprocess
import sys

import pytest

from tests.helpers.project import PROJECT
from tests.helpers.saving import (
    NEW,
    OLD,
    Version,
    in_child,
    save_in_place,
    version_of,
    watch,
)
from utils.checkpoint import save_checkpoint, saving
from utils.cli import UserError
from utils.files import prepare_target

ERRORS = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT]

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def save_with_fault(monkeypatch, path, call, fault):
    """Save while one call raises -> (the exception, old bytes intact, what lies there).

    The real flush of a closing file still happens, as it does on a real disk.
    """
    before = path.read_bytes() if path.exists() else None

    def step(name):
        if name == f"before {call}":
            raise fault

    with monkeypatch.context() as patch, pytest.raises(BaseException) as caught:
        watch(patch, step)
        save_checkpoint(path, Version(NEW))
    after = path.read_bytes() if path.exists() else None
    return caught.value, after == before, [p.name for p in path.parent.iterdir()]


@pytest.mark.parametrize("call", ["open", "write", "flush", "fsync", "replace"])
@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_failed_call_is_loud_and_harms_nothing(monkeypatch, path, call, number):
    """P3, C06: UserError with path and reason, old file untouched, no tmp left."""
    for old in (None, OLD):
        if old:
            save_checkpoint(path, Version(old))
        fault = OSError(number, os.strerror(number))
        error, intact, left = save_with_fault(monkeypatch, path, call, fault)
        assert isinstance(error, UserError) and intact
        assert str(path) in str(error) and os.strerror(number) in str(error)
        assert left == ([path.name] if old else [])


def test_fault_harness_catches_a_save_in_place(monkeypatch, path):
    save_checkpoint(path, Version(OLD))
    monkeypatch.setattr(saving, "replace_file", save_in_place)
    fault = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not save_with_fault(monkeypatch, path, "write", fault)[1]


def test_failed_clean_up_does_not_hide_the_reason(monkeypatch, path):
    """P3, "from then on": the disk fails at fsync, and then at removing the tmp."""

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "unlink", refuse)
    fault = OSError(errno.EIO, os.strerror(errno.EIO))
    error, intact, _ = save_with_fault(monkeypatch, path, "fsync", fault)
    assert isinstance(error, UserError) and intact
    assert os.strerror(errno.EIO) in str(error)


def test_fault_at_the_folder_leaves_a_whole_file(monkeypatch, path):
    """P1, P3: an error after the rename is still reported as a failed save."""
    save_checkpoint(path, Version(OLD))
    for call in ("open_folder", "fsync_folder"):
        fault = OSError(errno.EIO, os.strerror(errno.EIO))
        error, _, left = save_with_fault(monkeypatch, path, call, fault)
        assert isinstance(error, UserError) and version_of(path) in (OLD, NEW)
        assert left == [path.name]


def test_interrupt_inside_a_save_passes_on_and_leaves_no_tmp(monkeypatch, path):
    """P22: Ctrl-C during a save is neither swallowed nor renamed."""
    save_checkpoint(path, Version(OLD))
    fault = KeyboardInterrupt()
    error, intact, left = save_with_fault(monkeypatch, path, "fsync", fault)
    assert error is fault and intact and left == [path.name]


def test_file_size_limit(path):
    """C10, P3: RLIMIT_FSIZE, a real limit of the kernel."""
    save_checkpoint(path, Version(OLD, size=10))
    before, (reader, writer) = path.read_bytes(), os.pipe()

    def save():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            save_checkpoint(path, Version(NEW))
        except UserError as error:
            os.write(writer, str(error).encode())

    os.waitpid(in_child(save), 0)
    os.close(writer)
    with open(reader, encoding="utf-8") as message:
        said = message.read()
    assert str(path) in said and os.strerror(errno.EFBIG) in said
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


MOUNTED = """
import subprocess, sys
from pathlib import Path
from torch import nn
from utils.checkpoint import save_checkpoint
from utils.files import prepare_target
from utils.cli import UserError

path = Path(sys.argv[1], "Best_AE.pth")
subprocess.run(["mount", "-ttmpfs", "-osize=64k", "none", path.parent], check=True)
small, large = nn.Linear(10, 10), nn.Linear(200, 200)
small.name = large.name = "AE"
save_checkpoint(path, small)
before = path.read_bytes()
for fault in (lambda: save_checkpoint(path, large), lambda: prepare_target(path)):
    try:
        fault()
    except UserError as error:
        print(error)
    print(path.read_bytes() == before, [p.name for p in path.parent.iterdir()])
    subprocess.run(["mount", "-oremount,ro", path.parent], check=True)
"""


def test_full_disk_and_read_only_mount(tmp_path):
    """C05, C07, P3: a real file system of 64 KiB, then the same read-only."""
    mount = ["unshare", "-m", "mount", "-ttmpfs", "none", str(tmp_path)]
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs unshare -m and the right to mount")
    command = ["unshare", "-m", sys.executable, "-c", MOUNTED, str(tmp_path)]
    lines = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    full, after_full, read_only, after_read_only = lines
    assert os.strerror(errno.ENOSPC) in full and str(tmp_path / "Best_AE.pth") in full
    assert os.strerror(errno.EROFS) in read_only and str(tmp_path) in read_only
    assert after_full == after_read_only == "True ['Best_AE.pth']"


def test_best_is_a_folder(path):
    """C09, before anything is trained."""
    path.mkdir()
    with pytest.raises(UserError, match="Best_AE.pth is a folder"):
        prepare_target(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(path, value):
    """P18: the best on disk stays finite."""
    save_checkpoint(path, Version(OLD))
    with pytest.raises(UserError, match="first.* finite|finite.* first"):
        save_checkpoint(path, Version(value))
    assert version_of(path) == OLD and list(path.parent.iterdir()) == [path]
