"""Unreadable photos are left out and named, with a reason."""

import pytest
from PIL import ImageFile

from tests.helpers.bad_photos import BAD, WHY, left_out, png, put
from tests.helpers.memory import memory_limited
from tests.helpers.photos import load
from utils.cli import UserError
from utils.data import photos
from utils.data.photos import decode, decode_all, reason

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def near(photo_folder, monkeypatch):
    """Return a class folder among thirty good photos; it is the working folder."""
    monkeypatch.chdir(photo_folder / "bellflower")  # paths of sockets must be short
    return photo_folder / "bellflower"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the unbound end of the socket
@pytest.mark.parametrize("kind", BAD)
def test_one_bad_photo_is_left_out_and_named(photo_folder, near, caplog, kind):
    """P11, P13, I09-I14, I18, I19, I23, I28: with a reason in words.

    All others are used; `strict` refuses it.
    """
    put(near / "007b.jpg", BAD[kind])
    loaders = load(photo_folder, 8, 24, 24)
    named, counted = left_out(caplog)
    assert f"left out {near / '007b.jpg'}: " in named and WHY.get(kind, "") in named
    assert counted == "left out 1 of 31 photos that cannot be read"
    assert sum(len(loader.dataset) for loader in loaders) == 30
    assert sum(len(images) for loader in loaders for images, _ in loader) == 30
    with pytest.raises(UserError, match="007b.jpg cannot be read"):
        load(photo_folder, 8, 24, 24, strict=True)


def test_truncated_photos_would_be_read_with_pillows_option(near, caplog, monkeypatch):
    """P11, P13: the tests above detect it."""
    put(near / "bad.jpg", BAD["JPEG, half"])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    decode_all([near / "010.png"] * 10 + [near / "bad.jpg"], 24, 24)
    assert left_out(caplog) == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_all_bad_photos_together_are_refused(photo_folder, near, caplog):
    """P13, I27: ten are named, all are counted; the error names the first."""
    for number, content in enumerate(BAD.values()):
        put(near / f"bad{number:02}.jpg", content)
    with pytest.raises(UserError) as caught:
        load(photo_folder, 8, 24, 24)
    percent = f"{100 * len(BAD) / (30 + len(BAD)):.0f} % unreadable"
    assert f"looks damaged: {percent}" in str(caught.value)
    assert str(near / "bad00.jpg") in str(caught.value)
    *named, counted = left_out(caplog)
    assert len(named) == 10 and f"{len(BAD)} of {30 + len(BAD)}" in counted


def test_a_tenth_may_be_unreadable(photo_folder, near):
    """I27: 3 of 30 are a tenth; 4 are more."""
    first, *others = sorted(near.iterdir())[:4]
    for path in others:
        path.write_bytes(b"")
    assert sum(len(side.dataset) for side in load(photo_folder, 8, 24, 24)) == 27
    first.write_bytes(b"")
    with pytest.raises(UserError, match="13 % unreadable"):
        load(photo_folder, 8, 24, 24)


def test_a_photo_without_permission_is_left_out(
    photo_folder, near, caplog, monkeypatch
):
    """I29: EACCES is injected, because root may read every file."""

    def opened(path):
        if path.name == "013.png" and path.parent == near:
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, "rb")

    monkeypatch.setattr(photos, "open_regular", opened)
    load(photo_folder, 8, 24, 24)
    assert left_out(caplog)[0] == f"left out {near / '013.png'}: Permission denied"


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "size, ceiling, held",
    [
        (20_000, photos.MAX_PIXELS, True),
        (12_000, photos.MAX_PIXELS, True),
        (8_000, photos.MAX_PIXELS, True),
        (8_000, 10**12, False),  # without our limit Pillow would take 190 MB
    ],
)
def test_a_decompression_bomb_takes_no_memory(
    tmp_path, monkeypatch, size, ceiling, held
):
    """P10, P11, I18, I19: refused with at most 50 MB more."""
    monkeypatch.setattr(photos, "MAX_PIXELS", ceiling)
    (tmp_path / "x.png").write_bytes(png(size, size))

    def work():
        with pytest.raises(Exception) as caught:
            decode(tmp_path / "x.png", 24, 24)
        assert reason(caught.value).startswith("too large")

    assert (tmp_path / "x.png").stat().st_size < 200
    assert (memory_limited(work, 50) == 0) == held
