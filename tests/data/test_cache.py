"""The cache of decoded photos: the same photos, whatever happens to its files."""

import json
import math
import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

import train_script  # noqa: F401  (children find it among the loaded modules)
from tests.helpers import forks
from tests.helpers.bad_photos import BAD, left_out, put
from tests.helpers.cache import drawn_loaders, drawn_map, drawn_parts, mapped, resident
from tests.helpers.commands import error_line, files_below, train
from tests.helpers.outputs import same_weights
from tests.helpers.photos import load, numbered_photos
from tests.helpers.project import GUARD, PROJECT
from tests.helpers.saving import in_child, watch
from utils.cli import UserError
from utils.data import cache, dataset
from utils.data.photos import decode_each

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
SET = {"hflip": True, "translate": 1}  # what draws random numbers


def same(loaders, others):
    """Return whether two pairs of loaders give the same batches, for two epochs."""
    pairs = list(zip(loaders, others, strict=True))
    if any(a.dataset.metadata != b.dataset.metadata for a, b in pairs):
        return False
    epochs = []
    for side in (loaders, others):
        torch.manual_seed(0)
        for loader in side:  # which may have given batches before
            loader.generator.manual_seed(0)
        epochs.append([batch for _ in range(2) for loader in side for batch in loader])
    return len(epochs[0]) == len(epochs[1]) and all(
        a.equal(b) and x.equal(y) for (a, x), (b, y) in zip(*epochs, strict=True)
    )


def rebuilt(caplog):
    """Return the log messages about caches that are not used."""
    return [message for message in caplog.messages if "built again" in message]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def array_of(folder):
    """Return the only array of a cache."""
    (path,) = folder.glob("*.npy")
    return path


# The same photos ----------------------------------------------------------------------


def test_loaders_with_and_without_a_cache_are_equal(photo_folder, folder):
    """Built and opened: batches of two epochs, split, metadata and all sums."""
    for _ in range(2):
        plain = load(photo_folder, **SET)
        cached = load(photo_folder, **SET, cache=folder)
        assert same(plain, cached)
        for one, other in zip(plain, cached, strict=True):
            one, other = one.dataset, other.dataset
            assert one.channel_means().equal(other.channel_means())
            assert one.class_proportions() == other.class_proportions()
            assert one.all_images().equal(other.all_images())
            assert one[3][0].equal(other[3][0]) and one[:2][0].equal(other[:2][0])
            assert one.images.shape == other.images.shape


def test_species_are_chosen_without_reading_the_photos(photo_folder, folder):
    options = {"species": ["calendula", "astilbe"]}
    cached = load(photo_folder, **options, cache=folder)
    assert same(load(photo_folder, **options), cached)
    assert not isinstance(cached[0].dataset.images, torch.Tensor)


def test_a_cache_is_decoded_once_and_is_a_plain_array(
    photo_folder, folder, monkeypatch
):
    """NumPy reads it; the photos are in the order of their names."""
    decoded = []

    def counted(paths, *size):
        decoded.extend(paths)
        return decode_each(paths, *size)

    monkeypatch.setattr(cache, "decode_each", counted)
    for _ in range(3):
        load(photo_folder, cache=folder)
    assert decoded == sorted(photo_folder.rglob("*.png"))
    array = np.load(array_of(folder), mmap_mode="r")
    assert array.shape == (30, 3, 8, 8) and array.dtype == np.uint8
    expected = [image for image, _ in decode_each(decoded, 8, 8)]
    assert torch.from_numpy(np.array(array)).equal(torch.stack(expected))


def test_what_is_read_is_a_copy(photo_folder, folder):
    """Nobody can write into the file through what it returns."""
    before = load(photo_folder, cache=folder)
    for index in (0, [1, 2], slice(3, 6)):
        before[0].dataset.images[index].fill_(7)
    assert same(load(photo_folder), load(photo_folder, cache=folder))


@pytest.mark.parametrize("name", ["AE", "diffusion"])
def test_a_training_with_a_cache_has_the_same_weights(tmp_path, photo_folder, name):
    """And writes nothing else than without it, but for the cache."""
    made = {}
    for run, flags in {"plain": (), "cached": ("--cache", tmp_path / "cache")}.items():
        result = train(name, tmp_path / run, photo_folder, *flags)
        assert (result.code, result.err) == (0, "")
        made[run] = files_below(tmp_path / run)
    assert made["plain"] == made["cached"]
    for file in made["plain"]:
        if file.endswith((".pth", ".pkl")) and "Last" not in file:
            assert same_weights(*(tmp_path / run / file for run in made))
    names = [Path(name).suffix for name in files_below(tmp_path / "cache")]
    assert sorted(names) == [".json", ".npy"]


# When it is used ----------------------------------------------------------------------


def test_the_photos_of_this_project_stay_in_memory(photo_folder, tmp_path, monkeypatch):
    """Sixteen species at 24 x 24 and at 64 x 64; nothing is written."""
    assert cache.IN_MEMORY > 15_740 * 3 * 64 * 64
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    sides = load(photo_folder)
    assert isinstance(sides[0].dataset.images, torch.Tensor)
    assert not (tmp_path / "home").exists()


def test_larger_sets_are_cached_in_the_users_folder(
    photo_folder, tmp_path, monkeypatch
):
    plain = load(photo_folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(dataset, "IN_MEMORY", 30 * 3 * 8 * 8)
    load(photo_folder)
    assert not (tmp_path / "home").exists()
    monkeypatch.setattr(dataset, "IN_MEMORY", 30 * 3 * 8 * 8 - 1)
    assert same(plain, load(photo_folder))
    assert array_of(tmp_path / "home" / "nn-lab").is_file()


def test_without_a_home_a_folder_is_asked_for(photo_folder, monkeypatch):
    """P24: in an empty environment one line, and small sets need no home."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no such user
    load(photo_folder)
    monkeypatch.setattr(dataset, "IN_MEMORY", 0)
    with pytest.raises(UserError, match="--cache DIR"):
        load(photo_folder)


def test_of_a_larger_set_a_part_is_evenly_spaced(tmp_path, monkeypatch):
    images = drawn_map(tmp_path / "x.npy", 1000, 8)
    side = drawn_loaders(images)[0].dataset
    assert side.fitting_memory() is side
    monkeypatch.setattr(dataset, "IN_MEMORY", 100 * 3 * 8 * 8)
    part = side.fitting_memory()
    assert len(part) == 100 and part.all_images().equal(side[::8][0])
    assert part.labels.equal(side.labels[::8]) and part.metadata == side.metadata


# Other photos -------------------------------------------------------------------------


def changed(path):
    shutil.copyfile(path.with_name("001.png"), path)
    os.utime(path, ns=(1, 1))


def touched(path):
    os.utime(path, ns=(1, 1))


def added(path):
    shutil.copyfile(path, path.with_name("new.png"))


def renamed(path):
    path.rename(path.with_name("zzz.png"))


@pytest.mark.parametrize("change", [changed, touched, added, Path.unlink, renamed])
def test_other_photos_make_another_cache(photo_folder, folder, caplog, change):
    """With one line; the next time there is none."""
    load(photo_folder, cache=folder)
    change(photo_folder / "astilbe" / "000.png")
    plain = load(photo_folder)
    for lines in (1, 1):
        assert same(plain, load(photo_folder, cache=folder))
        assert len(rebuilt(caplog)) == lines
    assert "have changed" in rebuilt(caplog)[0]


def test_another_size_and_another_folder_have_their_own_caches(
    photo_folder, tmp_path, folder, caplog
):
    """Both are kept, and neither is taken for the other."""
    other = shutil.copytree(photo_folder, tmp_path / "other")
    (other / "astilbe" / "000.png").unlink()
    options = [(photo_folder, 8), (photo_folder, 12), (other, 8)]
    for _ in range(2):
        for root, size in options:
            sides = load(root, 4, size, size, cache=folder)
            assert same(load(root, 4, size, size), sides)
    assert len(list(folder.glob("*.npy"))) == 3 and rebuilt(caplog) == []


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
        if kill_while_building(monkeypatch, root, folder, point) == 0:
            return left
        left.append(sorted(path.name.split(".", 1)[1] for path in folder.glob("*")))
        assert same(plain, load(root, cache=folder)), point
        assert not list(folder.glob("*.tmp")), point
        shutil.rmtree(folder)
    return left


def test_a_killed_building_leaves_nothing_that_is_used(monkeypatch, tmp_path, folder):
    """SIGKILL within the array; the next building removes the rest."""
    root = numbered_photos(tmp_path / "photos", 5)
    left = trials_of_kills(monkeypatch, root, folder, [6, 12])
    assert ["npy.lock", "npy.tmp"] in left


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


def test_rows_of_a_map_are_those_of_the_file(tmp_path):
    """In any order, with repetition, of any kind of index."""
    images = drawn_map(tmp_path / "x.npy", 700, 8)
    plain = torch.cat(list(drawn_parts(700, 8)))
    rows = torch.randint(700, (300,), generator=torch.manual_seed(0))
    part, expected = images.subset(rows), plain[rows]
    for index in (5, -1, slice(2, 9), slice(None, None, 7), [3, 3, 0], rows < 9):
        assert part[index].equal(expected[index])
    assert torch.cat(list(part.split(64))).equal(expected)
    assert part.shape == expected.shape and len(part) == 300


def most_in_memory(path, photos, limit=cache.RESIDENT, batch_size=64):
    """Read all photos in random order in a child -> bytes: (growth, of the map)."""
    images, ends = drawn_map(path, photos), os.pipe()

    def whole_pass():
        cache.RESIDENT = limit
        before, found = resident(), []
        training, _ = drawn_loaders(images, batch_size)
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


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="needs madvise")
def test_mapped_pages_are_given_back(tmp_path):
    """And without that the whole file would stay in memory, which the harness sees."""
    size, limit, path = 20_000 * 3 * 24 * 24, 2**22, tmp_path / "x.npy"
    _, kept = most_in_memory(path, 20_000, limit, batch_size=16)
    _, mutant = most_in_memory(path, 20_000, math.inf)
    assert kept < 2 * limit < 0.9 * size < mutant


@pytest.mark.slow
@pytest.mark.parametrize("photos", [200_000, 1_000_000])
def test_many_photos_take_little_memory(tmp_path, photos):
    """Less than 1 GB above what the process had, for a million of 24 x 24."""
    growth, of_map = most_in_memory(tmp_path / "x.npy", photos)
    assert of_map < 2 * cache.RESIDENT and growth < 10**9
