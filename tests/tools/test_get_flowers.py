"""tools.get_flowers installs photos, and runs as a command (PROMISES 2.6)."""

import errno
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.helpers.get_flowers import (
    PHOTO,
    PHOTOS,
    THREE,
    add_to_tar,
    everything_in,
    get,
    make_folder,
    make_tar,
    make_zip,
    refused,
)
from tests.helpers.project import python, run_command
from tools import get_flowers
from utils.cli import UserError

every_source = pytest.mark.parametrize("make", [make_zip, make_tar, make_folder])


# Which photos are installed ----------------------------------------------------


@pytest.mark.parametrize("form", ["zip", "w", "w:gz", "w:xz", "folder"])
def test_every_form_of_source_gives_the_same_folder(tmp_path, target, form, capsys):
    make = dict(zip=make_zip, folder=make_folder).get(form, make_tar)
    rest = [form] if make is make_tar else []
    found = get(make(tmp_path / "source", PHOTOS, *rest), target)
    assert found == {name.removeprefix("flowers/"): PHOTO for name in PHOTOS}
    out = capsys.readouterr().out
    assert out.isascii() and out.splitlines()[-4:] == [
        "astilbe: 2 photos",
        "bellflower: 2 photos",
        "calendula: 2 photos",
        "total: 6 photos of 3 species",
    ]


def test_the_nearest_folder_of_a_species_counts(tmp_path, target):
    """At any depth, in other spellings."""
    members = {
        "./flowers/flowers/Astilbe/a.jpg": b"1",
        "x/astilbe/small/raw/b.PNG": b"2",
        "rose/Black-Eyed Susan/c.jpeg": b"3",
        "rose/d.webp": b"4",
        "thistle/e.jpg": b"5",
        "f.jpg": b"6",
    }
    source = make_tar(tmp_path / "photos.tar", members, "w:gz")
    found = get(source, target, "--species", "rose", "astilbe", "black_eyed_susan")
    assert found == {
        "astilbe/a.jpg": b"1",
        "astilbe/b.PNG": b"2",
        "black_eyed_susan/c.jpeg": b"3",
        "rose/d.webp": b"4",
    }


@every_source
def test_system_files_are_left_out(tmp_path, target, make):
    names = (
        *("astilbe/._1.jpg", "__MACOSX/astilbe/1.jpg", "astilbe/.cache/1.jpg"),
        *("astilbe/notes.txt", "astilbe/1.jpg.part", "astilbe/Thumbs.db", ".git/1.jpg"),
    )
    source = make(tmp_path / "source", dict.fromkeys(names, b"x") | PHOTOS)
    assert set(get(source, target).values()) == {PHOTO}


@every_source
def test_photos_of_equal_names_are_all_kept(tmp_path, target, make):
    names = "a/rose/1.jpg", "b/rose/1.jpg", "c/rose/1.JPG", "d/rose/1-2.jpg"
    photos = {name: name.encode() for name in names}
    found = get(make(tmp_path / "source", photos), target, "--species", "rose")
    assert sorted(found.values()) == sorted(photos.values())
    assert len({name.lower() for name in found}) == 4


def test_the_last_of_two_equal_paths_is_kept(tmp_path, target):
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for data in (b"old", b"new"):
            add_to_tar(archive, "rose/1.jpg", data)
    found = get(tmp_path / "photos.tar", target, "--species", "rose")
    assert found == {"rose/1.jpg": b"new"}


def test_links_in_a_folder_are_ignored(tmp_path, target):
    source = make_folder(tmp_path / "source", PHOTOS)
    secret = make_folder(tmp_path / "secret", {"astilbe/x.jpg": b"secret"})
    (source / "flowers/astilbe/link.jpg").symlink_to(secret / "astilbe/x.jpg")
    (source / "linked").symlink_to(secret)
    (source / "flowers/astilbe/loop").symlink_to(source)
    assert set(get(source, target).values()) == {PHOTO}


def test_the_source_can_be_the_folder_of_a_species(tmp_path, target):
    source = make_folder(tmp_path / "tulip", {"1.jpg": PHOTO})
    assert get(source, target, "--species", "tulip") == {"tulip/1.jpg": PHOTO}


def test_three_species_by_default_or_all(tmp_path, target):
    photos = {f"{name}/1.jpg": PHOTO for name in get_flowers.ALL_SPECIES}
    source = make_zip(tmp_path / "photos.zip", photos)
    assert sorted(get(source, target)) == [f"{name}/1.jpg" for name in THREE]
    shutil.rmtree(target)
    assert len(photos) == 16
    assert set(get(source, target, "--species", "all")) == set(photos)


def test_the_sha256_is_printed_and_accepted(good_zip, target, capsys):
    get(good_zip, target)
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"archive: {good_zip.stat().st_size} bytes, sha256 ")
    shutil.rmtree(target)
    get(good_zip, target, "--sha256", first.split()[-1].upper())


def test_real_photos(real_photos):
    """M3, C4: every photo of the archive; other copies have other counts."""
    counts = {folder.name: len(os.listdir(folder)) for folder in real_photos.iterdir()}
    assert counts == {"astilbe": 660, "bellflower": 792, "calendula": 869}


# The folder is complete, or as before ------------------------------------------


def test_readme_and_dotfiles_of_the_old_folder_are_kept(good_zip, target):
    kept = {"README.md": b"photos go here", ".gitkeep": b"", "astilbe/.gitkeep": b""}
    make_folder(target, kept)
    found = get(good_zip, target)
    assert kept.items() <= found.items() and len(found) == len(kept) + len(PHOTOS)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"astilbe/1.jpg": b"mine", "rose/2.PNG": b"mine"}, "already has 2 photos"),
        ({"README.md": b"", "rose/notes.txt": b"mine"}, "a file 'rose/notes.txt'"),
        ({"rose/README.md": b"mine"}, "a file 'rose/README.md'"),
    ],
)
def test_a_folder_with_files_is_refused(good_zip, target, members, words):
    make_folder(target, members)
    refused(good_zip, target, str(target), words, "move or delete it", "--to")


def test_a_file_or_a_link_in_place_of_photos_is_refused(tmp_path, good_zip, target):
    target.mkdir()
    (target / "x.jpg").symlink_to(tmp_path)
    refused(good_zip, target, "already has 1 photos")
    shutil.rmtree(target)
    target.write_bytes(b"mine")
    refused(good_zip, target, "is not a folder")


@pytest.mark.parametrize(
    "end", [KeyboardInterrupt, SystemExit(143), OSError(errno.ENOSPC, "No space left")]
)
@pytest.mark.parametrize("where", ["extract", "rename"])
def test_a_failure_changes_nothing(good_zip, target, end, where, monkeypatch):
    """At the third photo, or between the two renames."""
    make_folder(target, {"README.md": b"photos go here", ".gitkeep": b""})
    before = everything_in(target.parent)
    owner = zipfile.ZipFile if where == "extract" else Path
    original, calls = getattr(owner, where), []

    def fail(self, *args):
        calls.append(self)
        if len(calls) == (3 if where == "extract" else 2):
            raise end
        return original(self, *args)

    monkeypatch.setattr(owner, where, fail)
    with pytest.raises((UserError, KeyboardInterrupt, SystemExit)):
        get(good_zip, target)
    assert len(calls) >= 2
    assert everything_in(target.parent) == before


def test_photos_that_appear_while_it_unpacks_are_kept(good_zip, target, monkeypatch):
    original = get_flowers.unpack

    def slow(*args):
        original(*args)
        make_folder(target, {"rose/1.jpg": b"mine"})

    monkeypatch.setattr(get_flowers, "unpack", slow)
    with pytest.raises(UserError, match="already has 1 photos"):
        get(good_zip, target)
    assert (target / "rose/1.jpg").read_bytes() == b"mine"
    assert os.listdir(target.parent) == ["flowers"]


# The command -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--species", "rose_of_nowhere"], ["'rose_of_nowhere'", "black_eyed_susan"]),
        (["--from", "no/such/place"], ["--from", "no/such/place"]),
        (["--sha256", "abc"], ["--sha256", "'abc'"]),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(target, args, words):
    """P25: exit code 2."""
    done = run_command("tools.get_flowers", "--to", target, *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tools.get_flowers: error: ")
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words)
    assert not target.exists()


def test_a_photo_that_cannot_be_written_ends_the_command(tmp_path, target):
    """The limit of the operating system is a real fault."""
    resource = pytest.importorskip("resource")
    large = {"flowers/calendula/large.jpg": os.urandom(50_000)}
    source = make_zip(tmp_path / "photos.zip", PHOTOS | large)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    args = ["--from", source, "--to", target]
    done = run_command("tools.get_flowers", *args, preexec_fn=limit)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "flowers.incomplete-" in done.stderr and "File too large" in done.stderr
    assert not any(target.parent.iterdir())


def test_torch_is_not_imported():
    code = "import sys, tools.get_flowers as g; sys.exit('torch' in sys.modules)"
    assert python("-c", code).returncode == 0
