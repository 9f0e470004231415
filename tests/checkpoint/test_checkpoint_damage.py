"""Reading damaged and foreign files: the very tensors, or one clear refusal."""

import os
import random
import zipfile

import pytest

from tests.helpers.damage import (
    FOREIGN,
    flipped,
    flips_inside_weights,
    outcome,
    refusal,
    tiny_checkpoint,
    zipped,
)
from utils.checkpoint import load_checkpoint

# Damaged ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint of 2 KB -> (path, its bytes, its tensors)."""
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "Best_AE.pth")


def test_cut_off_file_is_refused(tiny):
    """P8, L02-L04: every length up to 64, 1,000, all but a byte, 60 at random."""
    content, rng = tiny[1], random.Random(0)
    lengths = [*range(65), 1000, len(content) - 1]
    lengths += [rng.randrange(len(content)) for _ in range(60)]
    assert {outcome(tiny, content[:length]) for length in lengths} == {"refused"}
    tiny[0].write_bytes(content[:1000])
    assert "damaged or cut off" in refusal(load_checkpoint, tiny[0])


def test_flipped_bit_is_refused_or_harmless(tiny):
    """P8: 300 bits anywhere."""
    rng = random.Random(0)
    bits = [rng.randrange(8 * len(tiny[1])) for _ in range(300)]
    found = [outcome(tiny, flipped(tiny[1], bit)) for bit in bits]
    assert set(found) == {"refused", "same"}  # same: in the padding between members


def test_flipped_bit_of_the_directory_is_refused_or_harmless(tiny):
    """P8: every bit of a tensor's entry and of the end, which no checksum covers."""
    content = tiny[1]
    entry = content.rindex(b"PK\1\2", 0, content.rindex(b"data/0"))
    after, end = content.index(b"PK\1\2", entry + 4), content.rindex(b"PK\6\6")
    bits = [*range(8 * entry, 8 * after), *range(8 * end, 8 * len(content))]
    different = [b for b in bits if outcome(tiny, flipped(content, b)) == "different"]
    assert different == []


def test_flipped_bit_of_a_weight_is_refused(tiny):
    """L05"""
    assert flips_inside_weights(tiny) == {"refused"}


def test_damage_harness_catches_a_load_without_checksums(tiny, monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda self: None)
    assert "different" in flips_inside_weights(tiny)


def test_overwritten_bytes_are_refused_or_harmless(tiny):
    """P8: 40 splices of 16 bytes, half of them from elsewhere in the file."""
    content, rng, found = tiny[1], random.Random(0), []
    for trial in range(40):
        here, there = (rng.randrange(len(content) - 16) for _ in range(2))
        patch = content[there : there + 16] if trial % 2 else rng.randbytes(16)
        found.append(outcome(tiny, content[:here] + patch + content[here + 16 :]))
    assert "different" not in found and found.count("refused") > 20


# Foreign ----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # as the commands do
@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_foreign_file_is_refused(tmp_path, content):
    """P8, P9, L06: the path stands in the message."""
    path = tmp_path / "Best_AE.pth"
    path.write_bytes(content)
    assert str(path) in refusal(load_checkpoint, path)


def test_folder_in_place_of_a_file_is_refused(tmp_path):
    """L19"""
    assert "Is a directory" in refusal(load_checkpoint, tmp_path)


def test_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    """L19: EACCES is injected, since root may read everything."""

    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    assert "Permission denied" in refusal(load_checkpoint, tmp_path / "Best_AE.pth")


def test_bomb_is_refused_unopened(tmp_path, monkeypatch):
    """P10: members that unpack to more than the file holds are not unpacked at all."""
    opened = []
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda _: opened.append(1))
    bomb = zipped("data.pkl", content=bytes(10**7), compression=zipfile.ZIP_DEFLATED)
    (tmp_path / "Best_AE.pth").write_bytes(bomb)
    assert len(bomb) < 10**5
    assert "damaged" in refusal(load_checkpoint, tmp_path / "Best_AE.pth")
    assert opened == []
