"""The command that shows samples above the training photos nearest to them."""

from unittest.mock import MagicMock

import pytest
import torch
from PIL import Image

from tests.helpers.diffusion import save_small
from tools import nearest_neighbours
from utils.cli import UsageError
from utils.evaluation.metrics import nearest_training_images


def test_a_flipped_copy_is_shown_flipped():
    """The photos under samples that are copies, half of them flipped, equal them."""
    torch.manual_seed(0)
    photos = torch.rand(6, 3, 8, 8)
    samples = torch.cat([photos[:3].flip(3), photos[3:]])
    found = {"pixels": nearest_training_images(samples, photos)}
    assert found["pixels"].indices.tolist() == list(range(6))
    assert found["pixels"].flipped.tolist() == [True] * 3 + [False] * 3
    shown, _, below = nearest_neighbours.block(list(range(6)), samples, photos, found)
    assert (shown == below).all()


def test_copies_are_the_most_similar_samples():
    """Ten of sixty samples are photos with a little noise."""
    torch.manual_seed(0)
    photos, samples = torch.rand(30, 3, 8, 8), torch.rand(60, 3, 8, 8)
    copies = torch.randperm(60)[:10]
    samples[copies] = photos[:10] + 0.01 * torch.randn(10, 3, 8, 8)
    found = {"pixels": nearest_training_images(samples, photos)}
    assert set(nearest_neighbours.most_similar(found)) == set(copies.tolist())
    # The head of a column: distance, and ratio to the second distance.
    near = found["pixels"]
    first = nearest_neighbours.most_similar(found)[0]
    distance = near.first[first]
    parts = nearest_neighbours.block([first], samples, photos, found)
    assert parts[1] == [f"{distance:.2f} ({distance / near.second[first]:.2f})"]
    assert near.copies()[copies].all()


def test_the_sheet_has_forty_samples_and_the_ten_most_similar():
    """Five blocks: samples, then a row of text and one of photos per distance."""
    torch.manual_seed(0)
    photos, samples = torch.rand(5, 3, 8, 8), torch.rand(41, 3, 8, 8)
    found = {"pixels": nearest_training_images(samples, photos)}
    parts = nearest_neighbours.sheet(samples, photos, found, "title")
    pictures = [part for part in parts if not isinstance(part, str | list)]
    assert len(pictures) == 5 * 2 and len({p.shape for p in pictures}) == 1
    assert [len(part) for part in parts if isinstance(part, list)] == 5 * [10]
    assert parts[0] == "title" and "of 41 samples" in parts[-4]


def test_the_command_writes_a_picture(photo_folder, tmp_path):
    """Of ten columns, sampled from the weights of a file."""
    weights = save_small(tmp_path / "tiny.pkl")
    line = f"--data {photo_folder} --out {tmp_path} --weights {weights} --count 40"
    nearest_neighbours.main([*line.split(), "--steps", "1"])
    with Image.open(tmp_path / "vis" / "nearest_neighbours_diffusion.png") as picture:
        assert picture.width > 10 * 96 and picture.height > 15 * 96


def test_copies_of_a_photo_that_is_there_twice_are_found(monkeypatch, tmp_path):
    """Its second nearest photo is another one."""
    torch.manual_seed(0)
    photos = torch.rand(12, 3, 8, 8)
    photos[7] = photos[3]
    seen, training = [], MagicMock(all_images=lambda: photos)
    training.__len__.return_value = 12
    samples = torch.rand(40, 3, 8, 8)
    samples[25] = photos[3]
    for name, value in {
        "open_datasets": lambda *_: (training, None),
        "generate": lambda *_, **__: samples,
        "save_stack": lambda parts, path: None,
        "sheet": lambda samples, photos, found, title: seen.append((photos, found)),
    }.items():
        monkeypatch.setattr(nearest_neighbours, name, value)
    weights = save_small(tmp_path / "tiny.pkl")
    line = f"--out {tmp_path} --weights {weights} --count 40"
    nearest_neighbours.main(line.split())
    ((searched, found),) = seen
    assert len(searched) == 11
    assert nearest_neighbours.most_similar(found)[0] == 25


def test_too_few_or_too_many_samples_are_refused():
    for count in ("39", "10001"):
        with pytest.raises(UsageError, match=f"from 40 to 10000, got {count}"):
            nearest_neighbours.parse(["--count", count])
