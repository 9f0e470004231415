"""The cache of decoded photos: damage, bad photos, kills, full disks, memory."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

import train_script  # noqa: F401  (children find it among the loaded modules)
from tests.helpers import forks
from tests.helpers.bad_photos import BAD, left_out, put
from tests.helpers.cache import (
    array_of,
    drawn_loaders,
    drawn_map,
    mapped,
    rebuilt,
    resident,
    same,
)
from tests.helpers.commands import error_line, files_below
from tests.helpers.photos import load, numbered_photos
from tests.helpers.project import GUARD, PROJECT
from tests.helpers.saving import in_child, watch
from utils.cli import UserError
from utils.data import cache
from utils.data.photos import decode_each

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


# Damage -------------------------------------------------------------------------------


def flipped(place):
    """Return a function that changes one bit of a file's byte at `place`."""

    def flip(path):
        content = bytearray(path.read_bytes())
        content[place] ^= 4
        path.write_bytes(content)

    return flip


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def lengthened(path):
    path.write_bytes(path.read_bytes() + b"x")


def emptied(path):
    path.write_bytes(b"")


def in_json(edit):
    """Return a function that edits the description of an array."""

    def change(path):
        path = path.with_suffix(".json")
        edit(path)

    return change


def another_list(path):
    """Change what was found, but not its checksum."""
    content = json.loads(path.read_text("ascii"))
    content["facts"]["duplicates"] = [[0, 1]]
    path.write_text(json.dumps(content), "ascii")


def replaced(content):
    return lambda path: path.write_bytes(content)


DAMAGE = {
    "array cut": cut,
    "array lengthened": lengthened,
    "array empty": emptied,
    "array missing": Path.unlink,
    "header, first byte": flipped(0),
    "header, shape": flipped(61),
    "first pixel": flipped(128),
    "last pixel": flipped(-1),
    "JSON cut": in_json(cut),
    "JSON empty": in_json(emptied),
    "JSON missing": in_json(Path.unlink),
    "JSON of another kind": in_json(replaced(b"[1, 2]")),
    "JSON without facts": in_json(replaced(b"{}")),
    "JSON deeply nested": in_json(replaced(b"[" * 10**5)),
    "JSON of other bytes": in_json(replaced(bytes(range(256)))),
    "JSON edited": in_json(another_list),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_cache_is_built_again(photo_folder, folder, caplog, kind):
    """With one line that names the file; the next time there is none."""
    load(photo_folder, cache=folder)
    DAMAGE[kind](array_of(folder))
    for _ in range(2):
        assert same(load(photo_folder), load(photo_folder, cache=folder))
        (line,) = rebuilt(caplog)
        assert str(folder) in line


def test_mutant_damage_that_is_not_looked_for(photo_folder, folder, monkeypatch):
    """Without the checksum a changed pixel would be used."""
    load(photo_folder, cache=folder)
    with open(array_of(folder), "rb") as file:
        file.seek(128)
        expected = cache.checksum(file)
    DAMAGE["last pixel"](array_of(folder))
    monkeypatch.setattr(cache, "checksum", lambda file: expected)
    assert not same(load(photo_folder), load(photo_folder, cache=folder))


def test_the_cache_of_another_folder_is_not_used(photo_folder, tmp_path, caplog):
    """Put in the place of this folder's, with its description."""
    other = numbered_photos(tmp_path / "other", 30)
    load(photo_folder, cache=tmp_path / "1")
    load(other, cache=tmp_path / "2")
    for ending in (".npy", ".json"):
        source = array_of(tmp_path / "2").with_suffix(ending)
        shutil.copyfile(source, array_of(tmp_path / "1").with_suffix(ending))
    assert same(load(photo_folder), load(photo_folder, cache=tmp_path / "1"))
    assert len(rebuilt(caplog)) == 1


# Photos that cannot be read -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["html", "JPEG, half", "empty", "dangling link"])
def test_unreadable_photos_are_reported_from_a_cache_too(
    photo_folder, folder, caplog, kind
):
    """P13: the same lines and the same split; with `strict` the same error."""
    for name in ("b.jpg", "a.jpg"):
        put(photo_folder / "bellflower" / name, BAD[kind])
    plain, expected = load(photo_folder), left_out(caplog)
    assert len(expected) == 3
    for _ in range(2):
        caplog.clear()
        assert same(plain, load(photo_folder, cache=folder))
        assert left_out(caplog) == expected
    with pytest.raises(UserError) as strict:
        load(photo_folder, strict=True)
    for place in (folder, folder.with_name("another")):
        with pytest.raises(UserError) as cached:
            load(photo_folder, cache=place, strict=True)
        assert str(cached.value) == str(strict.value)


def test_too_many_unreadable_photos_leave_no_cache(photo_folder, folder):
    """I27: the error of a decoding in memory."""
    for number in range(4):
        put(photo_folder / "astilbe" / f"{number}.jpg", b"")
    with pytest.raises(UserError) as plain:
        load(photo_folder)
    with pytest.raises(UserError) as cached:
        load(photo_folder, cache=folder)
    assert str(cached.value) == str(plain.value)
    assert files_below(folder) == []


def test_a_photo_that_can_be_read_again_is_used(
    photo_folder, folder, caplog, monkeypatch
):
    """Such as after `chmod`: neither its size nor its time changes."""

    first = sorted(photo_folder.rglob("*.png"))[0]

    def refused(paths, *size):
        return [(None, "x")] if paths == [first] else decode_each(paths, *size)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "PART", 1)
        patch.setattr(cache, "decode_each", refused)
        for _ in range(2):
            sides = load(photo_folder, cache=folder)
            assert sum(len(side.dataset) for side in sides) == 29
    assert rebuilt(caplog) == []
    assert same(load(photo_folder), load(photo_folder, cache=folder))
    (line,) = rebuilt(caplog)
    assert "can be read now" in line


# Faults while it is built -------------------------------------------------------------


def kill_while_building(monkeypatch, root, folder, point):
    """Build in a child that is killed at its call number `point` -> its exit code."""

    def build():
        calls = count(1)

        def step(_):
            if next(calls) == point:
                os.kill(os.getpid(), signal.SIGKILL)

        with monkeypatch.context() as patch:
            watch(patch, step)
            load(root, cache=folder)

    return os.waitstatus_to_exitcode(os.waitpid(in_child(build), 0)[1])


def trials_of_kills(monkeypatch, root, folder, points):
    """Kill a building at each of the points -> what was left each time."""
    plain, left = load(root), []
    for point in points:
        code = kill_while_building(monkeypatch, root, folder, point)
        assert code in (0, -signal.SIGKILL)
        if code == 0:
            return left
        left.append(sorted(path.name.split(".", 1)[1] for path in folder.glob("*")))
        assert same(plain, load(root, cache=folder)), point
        assert not list(folder.glob("*.tmp")), point
        shutil.rmtree(folder)
    return left


def test_a_killed_building_leaves_nothing_that_is_used(monkeypatch, tmp_path, folder):
    """SIGKILL within the array, and before its description; the rest is removed."""
    root = numbered_photos(tmp_path / "photos", 5)
    left = trials_of_kills(monkeypatch, root, folder, [30, 46])
    assert left == [["npy.lock", "npy.tmp"], ["json.tmp", "npy", "npy.lock"]]


@pytest.mark.slow
def test_a_kill_at_every_call_of_a_building(monkeypatch, tmp_path, folder):
    """Before and after each open, write, flush, fsync and rename, until none hits."""
    root = numbered_photos(tmp_path / "photos", 5)
    left = trials_of_kills(monkeypatch, root, folder, range(1, 500))
    assert 30 < len(left) < 499
    kinds = [["npy.lock"], ["npy.lock", "npy.tmp"], ["npy", "npy.lock"]]
    kinds += [["json.tmp", "npy", "npy.lock"], ["json", "npy", "npy.lock"]]
    assert all(kind in left for kind in kinds)


@pytest.mark.parametrize("rounds", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_two_processes_that_build_do_no_harm(tmp_path, photo_folder, rounds):
    """Started together they open the same photos; nothing else is left."""
    plain = load(photo_folder)

    def opened(folder):
        assert same(plain, load(photo_folder, cache=folder))

    for number in range(rounds):
        folder = tmp_path / str(number)
        pids = [in_child(lambda folder=folder: opened(folder)) for _ in range(2)]
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
        assert [Path(n).suffix for n in files_below(folder)] == [".json", ".npy"]


def refused_command(tmp_path, photos, folder, before):
    """Train with a cache in a child, prepared by before() -> its error line."""
    args = ["--model", "AE", "--data", photos, "--out", tmp_path / "out"]
    args += ["--cache", folder, "--epochs", 1]
    pid = forks.start("train_script.py", *args, folder=tmp_path, before=before)
    assert forks.wait(pid) == 1 and (tmp_path / "out.txt").read_text() == ""
    return error_line((tmp_path / "err.txt").read_text(), "train_script.py")


def test_a_building_that_cannot_write_is_one_line(tmp_path, few_photos, folder):
    """A limit of the kernel within the array; nothing is left."""
    limit = (20_000, 20_000)
    line = refused_command(
        tmp_path,
        few_photos,
        folder,
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert "File too large" in line and "--cache DIR" in line
    assert str(folder) in line and ".npy" in line
    assert files_below(folder) == []


def test_a_folder_that_is_a_file_is_one_line(tmp_path, few_photos, folder):
    folder.write_bytes(b"x")
    line = refused_command(tmp_path, few_photos, folder, None)
    assert str(folder) in line and "--cache DIR" in line


FULL = """
import subprocess, sys
folder, script, *args = sys.argv[1:]
subprocess.run(["mount", "-ttmpfs", "-osize=64k", "none", folder], check=True)
code = subprocess.run([sys.executable, script, *args]).returncode
left = subprocess.run(["ls", folder], capture_output=True, text=True).stdout.split()
sys.exit(code if all(name.endswith(".lock") for name in left) else 99)
"""


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_a_full_disk_is_one_line(tmp_path, few_photos, folder, known):
    """A real one of 64 KiB; also where the system does not say how full it is."""
    mount = ["unshare", "-m", "mount", "-ttmpfs", "none", str(tmp_path)]
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs unshare -m and the right to mount")
    folder.mkdir()
    args = ["--model", "AE", "--data", few_photos, "--out", tmp_path / "out"]
    script = PROJECT / "train_script.py"
    if not known:
        script = tmp_path / "train_script.py"
        script.write_text(
            f"import shutil, sys; sys.path.insert(0, {str(PROJECT)!r})\n"
            "import train_script; from utils.cli import run\n"
            "shutil.disk_usage = lambda path: shutil._ntuple_diskusage(1, 0, 10**15)\n"
            "run(train_script.main)\n"
        )
    command = ["unshare", "-m", sys.executable, "-c", FULL, folder, script, *args]
    found = subprocess.run(
        [*command, "--cache", folder], capture_output=True, text=True
    )
    line = error_line(found.stderr, "train_script.py")
    assert found.returncode == 1 and found.stdout == ""
    assert "No space left" in line and "--cache DIR" in line and str(folder) in line


# Memory -------------------------------------------------------------------------------


def most_in_memory(path, photos, by_map=False):
    """Read all photos in random order in a child -> bytes: (growth, of the map)."""
    images, ends = drawn_map(path, photos), os.pipe()

    def whole_pass():
        if by_map:
            del os.preadv
        before, found = resident(), []
        training, _ = drawn_loaders(images, 64)
        training.dataset.channel_means()
        for number, _ in enumerate(training):
            if number % 61 == 0:
                found.append((resident() - before, mapped(path)))
        os.write(
            ends[1], json.dumps([max(n) for n in zip(*found, strict=True)]).encode()
        )

    try:
        assert os.waitpid(in_child(whole_pass, GUARD), 0)[1] == 0
        return json.loads(os.read(ends[0], 1000))
    finally:
        os.close(ends[0])
        os.close(ends[1])


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="needs preadv")
def test_photos_that_are_read_do_not_stay_in_memory(tmp_path):
    """And through the map the whole file would, which the harness sees."""
    size, path = 20_000 * 3 * 24 * 24, tmp_path / "x.npy"
    assert most_in_memory(path, 20_000)[1] < 2**20
    assert most_in_memory(path, 20_000, by_map=True)[1] > 0.9 * size


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "preadv"), reason="needs preadv")
@pytest.mark.parametrize("photos", [200_000, 1_000_000])
def test_many_photos_take_little_memory(tmp_path, photos):
    """Less than 1 GB above what the process had, for a million of 24 x 24."""
    growth, of_map = most_in_memory(tmp_path / "x.npy", photos)
    assert of_map < 2**20 and growth < 10**9


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="needs preadv")
def test_a_file_that_is_cut_while_it_is_used_is_one_line(tmp_path, monkeypatch):
    """And so is an error of the disk; through the map they would kill the process."""
    images = drawn_map(tmp_path / "x.npy", 100, 8)
    os.truncate(tmp_path / "x.npy", 5000)
    assert len(images[:20]) == 20
    with pytest.raises(UserError, match="x.npy: it was cut off"):
        images[[3, 99]]

    def failing(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(UserError, match="x.npy: Input/output error.*--cache DIR"):
        images[0]
