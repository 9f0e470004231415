"""tools.get_flowers refuses crafted and damaged archives (PROMISES 2.6, N2-N6)."""

import os
import shutil
import stat
import tarfile
import zipfile

import pytest

from tests.helpers.get_flowers import (
    PHOTO,
    PHOTOS,
    add_to_tar,
    get,
    make_tar,
    make_zip,
    refused,
)
from tools import get_flowers

GB = 10**9
OUTSIDE = (
    *("../x.jpg", "flowers/../../x.jpg", "flowers/astilbe/../../../x.jpg"),
    *("ABSOLUTE", "/x.jpg", "C:/x.jpg", "C:\\x.jpg"),
    *("..\\x.jpg", "rose\\..\\..\\x.jpg", "a\\x.jpg"),
)


# Archives that must not be unpacked --------------------------------------------


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_an_archive_that_leads_outside(tmp_path, target, make, name):
    """N3: tar; N4: zip."""
    name = str(tmp_path / "x.jpg") if name == "ABSOLUTE" else name
    source = make(tmp_path / "photos.archive", PHOTOS | {name: PHOTO})
    refused(source, target, "photos.archive", "leads outside")
    assert set(os.listdir(tmp_path)) == {"project", "photos.archive"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_tar_that_writes_through_a_link(tmp_path, target, kind):
    """N5"""
    outside = tmp_path / "outside"
    outside.mkdir()
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        add_to_tar(archive, "astilbe", type=kind, linkname=str(outside))
        for name, data in (PHOTOS | {"astilbe/x.jpg": PHOTO}).items():
            add_to_tar(archive, name, data)
    refused(tmp_path / "photos.tar", target, "is a link or a device")
    assert not any(outside.iterdir())


def test_a_zip_with_a_link(tmp_path, target):
    """N5: the Unix mode of the member shows it."""
    link = zipfile.ZipInfo("flowers/astilbe/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    source = make_zip(tmp_path / "photos.zip", PHOTOS | {link: b"/etc/passwd"})
    refused(source, target, "'flowers/astilbe/link.jpg'", "is a link")


def test_a_zip_bomb_by_ratio(tmp_path, target):
    """N6: 5 MB of zeros are compressed about 1000:1."""
    bomb = {"flowers/astilbe/bomb.jpg": bytes(5_000_000)}
    source = make_zip(tmp_path / "photos.zip", PHOTOS | bomb)
    refused(source, target, "packed more than 100:1")


def test_a_zip_bomb_of_10_gb(good_zip, target):
    """N6: its table declares 10 GB, at an allowed ratio."""
    with zipfile.ZipFile(good_zip, "a") as archive:
        for info in archive.infolist()[:5]:
            info.file_size, info.compress_size = 2 * GB, GB
        archive.writestr("flowers/notes.txt", b"")  # so that the table is rewritten
    refused(good_zip, target, "more than 4 GB")


def test_a_tar_bomb_of_10_gb(tmp_path, target):
    """N6: refused by the header, before the data."""
    header = tarfile.TarInfo("flowers/astilbe/bomb.jpg")
    header.size = 10 * GB
    (tmp_path / "photos.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT))
    refused(tmp_path / "photos.tar", target, "more than 4 GB")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_an_archive_of_too_many_members(tmp_path, target, make, monkeypatch):
    """N6: more than 50,000."""
    assert get_flowers.MAX_MEMBERS == 50_000
    monkeypatch.setattr(get_flowers, "MAX_MEMBERS", len(PHOTOS))
    get(make(tmp_path / "good", PHOTOS), target)
    shutil.rmtree(target)
    source = make(tmp_path / "bad", PHOTOS | {"flowers/empty.txt": b""})
    refused(source, target, "one of more than 6 members")


# Archives that are damaged, or hold something else -----------------------------


def with_a_flipped_bit(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_a_damaged_zip(tmp_path, target):
    """Cut off, a wrong bit in the last photo, encrypted, a web page, or empty."""
    good = make_zip(tmp_path / "good.zip", PHOTOS, zipfile.ZIP_STORED).read_bytes()
    flipped = with_a_flipped_bit(good, good.rindex(PHOTO) + len(PHOTO) // 2)
    encrypted = with_a_flipped_bit(good, good.index(b"PK\1\2") + 8)
    encrypted = with_a_flipped_bit(encrypted, 6)
    for data in (good[:-30], flipped, encrypted, b"<html>log in</html>", b""):
        (tmp_path / "bad.zip").write_bytes(data)
        refused(tmp_path / "bad.zip", target, "bad.zip", "is damaged")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_that_is_cut_off(tmp_path, target, mode):
    """At any byte, also between two members."""
    good = make_tar(tmp_path / "good", PHOTOS, mode).read_bytes()
    end = len(PHOTOS) * 1024 if mode == "w" else len(good) - 1
    for length in range(0, end + 1, end // 24):
        (tmp_path / "bad").write_bytes(good[:length])
        refused(tmp_path / "bad", target, "is damaged")


@pytest.mark.parametrize(("mode", "words"), [("w:gz", "CRC"), ("w", "bad header")])
def test_a_tar_with_a_wrong_bit(tmp_path, target, mode, words):
    """In the checksum or a header: not read as a shorter archive of every species."""
    more = {f"flowers/astilbe/more-{n}.jpg": PHOTO for n in range(3)}
    source = make_tar(tmp_path / "photos.tar", PHOTOS | more, mode)
    data = source.read_bytes()
    place = data.index(b"flowers/astilbe/more-1") if mode == "w" else len(data) - 8
    source.write_bytes(with_a_flipped_bit(data, place))
    refused(source, target, "is damaged", words)


def test_a_species_without_photo_is_named(tmp_path, good_zip, target):
    wanted = ["--species", "astilbe", "tulip", "iris"]
    refused(good_zip, target, "no photo of iris, tulip", "--species", args=wanted)
    refused(make_zip(tmp_path / "no.zip", {}), target, "no photo of astilbe, bellfl")


def test_wrong_sha256_of_a_local_archive(good_zip, target):
    """N2: refused; the user's file is kept."""
    refused(good_zip, target, "its sha256 is not", args=["--sha256", "0" * 64])
    assert good_zip.exists()
