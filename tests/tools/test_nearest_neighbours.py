"""The command that shows samples above the training photos nearest to them."""

import pytest
import torch
from PIL import Image

from diffusion import Diffuser
from tools import nearest_neighbours as memorisation
from utils.checkpoint import save_checkpoint
from utils.cli import UsageError
from utils.evaluation.metrics import nearest_training_images

PIXELS = torch.nn.Flatten()


def near_by_pixels(samples, photos):
    """What `sheet` takes: pixels, and the nearest photos by them."""
    return {"pixels": (PIXELS, nearest_training_images(samples, photos))}


def test_a_mirrored_copy_is_shown_mirrored():
    """Exactly as the sample looks; an unmirrored one as it is."""
    torch.manual_seed(0)
    photos = torch.rand(6, 3, 8, 8)
    samples = torch.cat([photos[:3].flip(3), photos[3:]])
    near = nearest_training_images(samples, photos)
    assert near.indices.tolist() == list(range(6))
    assert torch.equal(memorisation.facing(samples, photos, PIXELS), samples)


def test_copies_are_the_first_suspects():
    """Ten of sixty are photos with a little noise; no other sample comes before."""
    torch.manual_seed(0)
    photos, samples = torch.rand(30, 3, 8, 8), torch.rand(60, 3, 8, 8)
    copies = torch.randperm(60)[:10]
    samples[copies] = photos[:10] + 0.01 * torch.randn(10, 3, 8, 8)
    found = near_by_pixels(samples, photos)
    assert set(memorisation.suspects(found)) == set(copies.tolist())
    (_, near) = found["pixels"]
    first = memorisation.suspects(found)[0]
    distance = (samples[first] - photos[near.indices[first]]).norm()
    (word,) = memorisation.words(near, [first])
    assert word == f"{distance:.2f} ({distance / near.second[first]:.2f})"
    assert near.copies()[copies].all()


def test_the_sheet_holds_forty_samples_and_ten_suspects():
    """Five blocks: samples, then a row of words and of photos for each way."""
    torch.manual_seed(0)
    photos, samples = torch.rand(5, 3, 8, 8), torch.rand(41, 3, 8, 8)
    parts = memorisation.sheet(samples, photos, near_by_pixels(samples, photos), "it")
    pictures = [part for part in parts if not isinstance(part, str | list)]
    assert len(pictures) == 5 * 2 and len({p.shape for p in pictures}) == 1
    assert [len(part) for part in parts if isinstance(part, list)] == 5 * [10]
    assert parts[0] == "it" and "of 41 samples" in parts[-4]


def test_the_command_draws_a_sheet(photo_folder, tmp_path):
    """Ten columns of samples by the weights of a file."""
    about = {
        "settings": {"image_size": 8},
        "data": {"split_seed": 0, "source": "photos", "split": "", "count": 30},
    }
    save_checkpoint(tmp_path / "tiny.pkl", Diffuser(2, widths=(16,)), about)
    where = ["--data", str(photo_folder), "--out", str(tmp_path)]
    how = ["--weights", str(tmp_path / "tiny.pkl"), "--count", "40", "--steps", "1"]
    memorisation.main([*where, *how])
    with Image.open(tmp_path / "vis" / "memorisation_diffusion.png") as picture:
        assert picture.width > 10 * 96 and picture.height > 15 * 96


def test_too_few_or_too_many_samples_are_refused():
    for count in ("39", "10001"):
        with pytest.raises(UsageError, match=f"from 40 to 10000, got {count}"):
            memorisation.parse(["--count", count])
