"""P1 to P4: weights are the old ones or the new ones, whatever happens."""

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import time

import pytest

import diffusion  # noqa: F401  (children find the scripts among the loaded modules)
import train_script  # noqa: F401
from tests.helpers import forks
from tests.helpers.commands import TRAININGS, error_line, script_of
from tests.helpers.project import PROJECT
from tests.helpers.saving import (
    CALLS,
    NEW,
    OLD,
    Version,
    kill_at_every_call,
    random_kills,
    save_in_place,
    watch,
)
from utils import files
from utils.checkpoint import load_checkpoint, save_checkpoint, saving, weights_name
from utils.cli import UserError
from utils.files import prepare_target

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)
FAILING = ("open", "write", "fsync", "replace")
SMALL = ("--image-size", 8, "--batch-size", 16)


@pytest.fixture
def path(tmp_path):
    return prepare_target(tmp_path / "models" / "Best_AE.pth")


def arguments(name, out, photos, *more):
    """Return the arguments of a small training."""
    args = ["--model", name, *SMALL, "--data", photos, "--out", out, *more]
    return args + (["--channels", "16,32"] if name == "diffusion" else [])


# P1: killed -------------------------------------------------------------------


def test_kills_at_every_call(monkeypatch, path, report):
    """P1a, C01, C02."""
    found = {old: kill_at_every_call(monkeypatch, path, old) for old in (None, OLD)}
    points = sum(map(len, found.values()))
    wrong = [v for old, seen in found.items() for v in seen if v not in (old, NEW)]
    report.add("P1", "SIGKILL around every call of one save", points, len(wrong))
    assert wrong == [] and points == 2 * (2 * len(CALLS) + 1)


def test_random_kills(path, report):
    """P1b, C03."""
    found, inside = random_kills(path, save_checkpoint, 300)
    wrong = [(old, new) for old, new in found if new == "torn" or (old and not new)]
    remarks = f"{inside} inside a save"
    report.add("P1", "SIGKILL of a process that saves", 300, len(wrong), remarks)
    assert wrong == [] and inside >= 30


def test_kills_of_trainings(few_photos, tmp_path, report):
    """P1c: 40 real trainings, after 0 to 2 seconds of work."""
    rng, wrong = random.Random(0), []
    for trial in range(40):
        name = TRAININGS[trial % 4]
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        args = arguments(name, out, few_photos, "--epochs", 1000, "--patience", 1000)
        pid = forks.start(script_of(name), *args, folder=out)
        time.sleep(rng.uniform(0, 2))
        os.kill(pid, signal.SIGKILL)
        assert forks.wait(pid) == -signal.SIGKILL
        best = out / "models" / weights_name(name)
        try:
            load_checkpoint(best) if best.exists() else None
        except UserError as error:
            wrong.append(str(error))
    report.add("P1", "SIGKILL of a training", 40, len(wrong))
    assert wrong == []


def test_mutant_a_save_in_place(monkeypatch, path):
    monkeypatch.setattr(files, "open", open, raising=False)
    monkeypatch.setattr(saving, "replace_file", save_in_place)
    found, _ = random_kills(path, save_checkpoint, 20)
    assert "torn" in [new for _, new in found]


# P2: the line comes last ------------------------------------------------------

TRACED = "openat,write,fsync,rename,renameat,renameat2"


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize("name", TRAININGS)
def test_the_line_follows_the_file(few_photos, tmp_path, report, name):
    """P2: fsync of the file, rename, fsync of the folder, then the line on stdout."""
    log, out = tmp_path / "trace", tmp_path / "out"
    start = ["strace", "-f", "-y", "-e", f"trace={TRACED}", "-o", str(log), "python"]
    args = arguments(name, out, few_photos, "--epochs", 1)
    command = [*start, PROJECT / script_of(name), *args]
    with open(tmp_path / "stdout", "wb") as stdout:
        subprocess.run(list(map(str, command)), check=True, stdout=stdout)
    best = out / "models" / weights_name(name)
    events = []
    for line in log.read_text(errors="replace").splitlines():
        if "fsync(" in line and f"{best}.tmp>" in line:
            events.append("fsync")
        elif "rename" in line and f'{best}.tmp"' in line:
            events.append("rename")
        elif "fsync(" in line and f"{best.parent}>" in line:
            events.append("fsync of the folder")
        elif "write(1<" in line and '"Epoch: ' in line:
            events.append("line")
    events = events[events.index("fsync") :]  # the state at the start is before it
    right = events[:4] == ["fsync", "rename", "fsync of the folder", "line"]
    report.add("P2", f"order of system calls of {name}, by strace", 1, int(not right))
    assert right, events


# P3: a save that fails --------------------------------------------------------


def failed_save(monkeypatch, path, call, number, for_ever):
    """Save while a call fails once or from then on -> what is wrong with the end."""
    save_checkpoint(path, Version(OLD))
    before, failing = path.read_bytes(), [False]

    def step(name):
        failing[0] |= name == f"before {call}"
        if failing[0] and (for_ever or name == f"before {call}"):
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        watch(patch, step)
        try:
            save_checkpoint(path, Version(NEW))
        except UserError as error:
            said = str(error)
        else:
            return "silent"
    if str(path) not in said or os.strerror(number) not in said:
        return said
    if path.read_bytes() != before:
        return "the old file is not whole"
    left = sorted(p.name for p in path.parent.iterdir())
    return None if left == [path.name] else left


def real_failures(name, few_photos, root):
    """Run a training where the system refuses to save -> name -> (code, last line)."""
    found = {}

    def run(kind, prepare=lambda: None, before=None):
        out = root / kind
        out.mkdir()
        prepare_target(out / "models" / weights_name(name))
        prepare_ = prepare(out / "models")
        args = arguments(name, out, few_photos, "--epochs", 1)
        pid = forks.start(script_of(name), *args, folder=root, before=before)
        code = forks.wait(pid)
        found[kind] = code, (root / "err.txt").read_text().splitlines()[-1:]
        (root / "err.txt").unlink()
        return prepare_

    def small_disk(models):
        subprocess.run(["mount", "-ttmpfs", "-osize=64k", "none", models], check=True)

    def read_only(models):
        small_disk(models)
        subprocess.run(["mount", "-oremount,ro", models], check=True)

    def no_folder(models):
        models.rmdir()
        models.write_text("mine")

    def best_is_a_folder(models):
        (models / weights_name(name)).mkdir()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    run("No space left on device", small_disk)
    run("Read-only file system", read_only)
    run("is not a folder", no_folder)
    run("is a folder", best_is_a_folder)
    run("File too large", lambda models: None, before=limit)
    for models in (root / "No space left on device", root / "Read-only file system"):
        subprocess.run(["umount", models / "models"], check=True)
    return found


def test_failed_saves(monkeypatch, path, few_photos, tmp_path, report):
    """P3, C05 to C10: 32 injected failures and 5 real ones."""
    wrong = [
        (call, number, for_ever, end)
        for call in FAILING
        for number in ERRORS
        for for_ever in (False, True)
        if (end := failed_save(monkeypatch, path, call, number, for_ever))
        # A temporary file stays where removing it fails too; the old file is whole.
        and not (for_ever and isinstance(end, list))
    ]
    mountable = subprocess.run(["mount", "-ttmpfs", "none", path.parent], check=False)
    if mountable.returncode:
        pytest.skip("needs the right to mount")
    subprocess.run(["umount", path.parent], check=True)
    root = tmp_path / "real"
    root.mkdir()
    for words, (code, err) in real_failures("AE", few_photos, root).items():
        line = error_line("\n".join(err), "train_script.py")
        wrong += [(words, code, line)] if code != 1 or words not in line else []
    report.add("P3", "saves that fail, 32 injected and 5 real", 37, len(wrong))
    assert wrong == []


# P4: two trainings ------------------------------------------------------------


def test_pairs_of_trainings(few_photos, tmp_path, report):
    """P4, C11, C12: one runs, the other is refused; a kill frees the lock."""
    wrong, args = [], arguments("AE", tmp_path / "out", few_photos, "--epochs")
    for trial in range(20):
        folders = [tmp_path / f"{trial}{side}" for side in "ab"]
        for folder in folders:
            folder.mkdir()
        pids = [forks.start("train_script.py", *args, 3, folder=f) for f in folders]
        codes = [forks.wait(pid) for pid in pids]
        said = [(folder / "err.txt").read_text() for folder in folders]
        if sorted(codes) == [0, 1]:
            refused = said[codes.index(1)]
            if "another training is writing" not in refused.splitlines()[-1]:
                wrong.append(refused)
        elif codes != [0, 0]:  # the first had ended before the second began
            wrong.append((codes, said))
        # The holder is killed, and the next one starts.
        pid = forks.start("train_script.py", *args, 10**6, folder=folders[0])
        time.sleep(0.5)
        os.kill(pid, signal.SIGKILL)
        forks.wait(pid)
        pid = forks.start("train_script.py", *args, 1, folder=folders[1])
        code = forks.wait(pid)
        wrong += [("after a kill", code)] if code else []
    report.add("P4", "two trainings of one file; a start after a kill", 40, len(wrong))
    assert wrong == []


def test_different_models_side_by_side(few_photos, tmp_path, report):
    """P4: 5 pairs that do not meet."""
    codes = []
    for trial in range(5):
        pids = []
        for name in ("AE", "VAE"):
            folder = tmp_path / f"{trial}{name}"
            folder.mkdir()
            args = arguments(name, tmp_path / "out", few_photos, "--epochs", 1)
            pids.append(forks.start("train_script.py", *args, folder=folder))
        codes += [forks.wait(pid) for pid in pids]
    report.add("P4", "two models side by side", 5, sum(map(bool, codes)))
    assert not any(codes)


def test_mutant_no_lock(few_photos, tmp_path, monkeypatch):
    """Both of a pair then run."""
    monkeypatch.setattr("filelock.FileLock.acquire", lambda self: None)
    args = arguments("AE", tmp_path / "out", few_photos, "--epochs", 30)
    folders = [tmp_path / side for side in "ab"]
    for folder in folders:
        folder.mkdir()
    pids = [
        forks.start("train_script.py", *args, "--patience", 30, folder=folder)
        for folder in folders
    ]
    for pid in pids:
        forks.wait(pid)
    # Both trained, whatever their saves did to each other.
    for folder in folders:
        assert "Epoch: 0, " in (folder / "out.txt").read_text()
        assert "another training" not in (folder / "err.txt").read_text()
