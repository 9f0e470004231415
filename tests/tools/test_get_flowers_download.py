"""tools.get_flowers downloads from local servers (PROMISES 2.6, N1, N2)."""

import contextlib
import errno
import os
import shutil
import subprocess
import urllib.request
import zipfile

import pytest

from tests.helpers.get_flowers import (
    PHOTO,
    THREE,
    serving,
)
from tools import get_flowers
from utils.cli import UserError

DATA = bytes(range(256)) * 5000  # several times the size of one read


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Connect to 127.0.0.1 directly."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def part(tmp_path):
    """Return the file that download() writes."""
    return tmp_path / "flowers.zip.part"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a file with a key and a certificate for 127.0.0.1."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    options = "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    names = "-subj /CN=loopback -addext subjectAltName=IP:127.0.0.1 -days 2"
    files = ["-keyout", path, "-out", path.with_name("certificate.pem")]
    command = ["openssl", *options.split(), *names.split(), *files]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + files[-1].read_bytes())
    return path


@pytest.fixture
def https(certificate, monkeypatch):
    """Return serving() with a trusted certificate, in place of Kaggle."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    @contextlib.contextmanager
    def start(*args, **kwargs):
        with serving(*args, certificate=certificate, **kwargs) as server:
            monkeypatch.setattr(get_flowers, "URL", server.url)
            yield server

    return start


def plain_download(server, part):
    get_flowers.download(server.url, part, urllib.request.build_opener())


def fails(match):
    return pytest.raises(UserError, match=match)


# download(): one file, over plain http -----------------------------------------


def test_a_server_without_ranges_starts_over(part):
    with serving(DATA, mode="no ranges", cuts=1) as server:
        with fails("to resume"):
            plain_download(server, part)
        plain_download(server, part)
    assert part.read_bytes() == DATA


def test_a_wrong_range_is_not_appended(part):
    part.write_bytes(DATA[:100])
    refusal = fails("server sent 'bytes 7-.*delete it")
    with serving(DATA, mode="other range") as server, refusal:
        plain_download(server, part)
    assert part.read_bytes() == DATA[:100]


@pytest.mark.parametrize("start", [DATA, DATA + b"too long", b""])
def test_a_complete_part_is_kept_and_a_longer_one_is_replaced(part, start):
    """Status 416 means complete only if the lengths are equal."""
    part.write_bytes(start)
    with serving(DATA) as server:
        plain_download(server, part)
    assert part.read_bytes() == DATA
    assert len(server.ranges) == (2 if len(start) > len(DATA) else 1)


def test_a_missing_page_and_a_missing_server(part):
    missing = fails("404: Not Found.*l3llff/flowers and use")
    with serving(DATA, mode="missing") as server, missing:
        plain_download(server, part)
    with fails("Connection refused.*and use --from"):
        plain_download(server, part)
    assert not part.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_named(part):
    part.symlink_to("/dev/full")
    with serving(DATA) as server, fails("No space left"):
        plain_download(server, part)


# The command, over https only --------------------------------------------------


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "ftp://127.0.0.1/x"])
def test_other_protocols_than_https_are_refused(target, monkeypatch, url):
    monkeypatch.setattr(get_flowers, "URL", url)
    monkeypatch.setenv("http_proxy", "https://127.0.0.1:9")
    with fails("is not https"):
        get_flowers.main(["--to", str(target)])
    assert not any(target.parent.iterdir())


def test_a_redirect_from_https_to_http_is_refused(target, https):
    with (
        serving(DATA) as plain,
        https(DATA, "redirect", location=plain.url) as server,
        fails("is not https"),
    ):
        get_flowers.main(["--to", str(target)])
    assert len(server.ranges) == 1 and plain.ranges == []
    assert not any(target.parent.iterdir())


def test_a_redirect_from_https_to_https_is_followed(good_zip, target, https):
    data = good_zip.read_bytes()
    with https(data) as other, https(b"", "redirect", location=other.url):
        get_flowers.main(["--to", str(target)])
    assert sorted(os.listdir(target)) == list(THREE)


def test_an_unknown_certificate_is_refused(target, certificate, monkeypatch):
    with serving(DATA, certificate=certificate) as server:
        monkeypatch.setattr(get_flowers, "URL", server.url)
        with fails("CERTIFICATE_VERIFY_FAILED"):
            get_flowers.main(["--to", str(target)])
    assert not any(target.parent.iterdir())


def test_the_whole_command_after_a_cut(good_zip, target, https):
    """N1: no folder after the first run; the second run completes it."""
    data = good_zip.read_bytes()
    half = len(data) // 2
    with https(data, cuts=1) as server:
        with fails(f"ended at byte {half} of {len(data)}; run the same command again"):
            get_flowers.main(["--to", str(target)])
        assert os.listdir(target.parent) == ["flowers.zip.part"]
        get_flowers.main(["--to", str(target)])
    assert server.ranges == ["bytes=0-", f"bytes={half}-"]
    assert os.listdir(target.parent) == ["flowers"]
    found = {path.name: path.read_bytes() for path in target.rglob("*.jpg")}
    assert found == {"0.jpg": PHOTO, "1.jpg": PHOTO}


@pytest.mark.parametrize(
    ("data", "args", "words"),
    [
        (None, ["--sha256", "0" * 64], "removed the .*sha256 is not"),
        (b"<html>log in", [], "removed the .*damaged"),
    ],
)
def test_a_download_that_must_not_be_used_is_removed(
    good_zip, target, https, data, args, words
):
    """N2: another sha256, or no archive."""
    with https(data or good_zip.read_bytes()), fails(words):
        get_flowers.main(["--to", str(target), *args])
    assert not any(target.parent.iterdir())


def test_a_download_that_cannot_be_synced_is_not_used(target, https, monkeypatch):
    def fail(_number):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with https(DATA), fails("Input/output error.*to resume"):
        get_flowers.main(["--to", str(target)])
    assert not target.exists()


def test_a_download_is_kept_if_only_the_disk_failed(
    good_zip, target, https, monkeypatch
):
    def fail(*_args):
        raise OSError(errno.ENOSPC, "No space left on device", "flowers/x")

    data = good_zip.read_bytes()
    with https(data) as server:
        with monkeypatch.context() as patch:
            patch.setattr(zipfile.ZipFile, "extract", fail)
            with fails("flowers/x: No space left on device"):
                get_flowers.main(["--to", str(target)])
        assert os.listdir(target.parent) == ["flowers.zip.part"]
        get_flowers.main(["--to", str(target)])
    assert server.ranges == ["bytes=0-", f"bytes={len(data)}-"]
    assert os.listdir(target.parent) == ["flowers"]
