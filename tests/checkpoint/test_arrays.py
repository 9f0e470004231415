"""Images in one .npy file: the command's flag and the writer below it."""

import weakref

import numpy as np
import pytest
import torch

import random_generation
from tests.helpers.commands import command, refused
from utils.checkpoint import save_checkpoint
from utils.cli import UserError
from utils.files import save_images
from utils.registry import load_model
from VarAutoencoder import VarAutoencoder


@pytest.fixture
def weights(tmp_path):
    """An untrained VAE of 8 x 12 images, saved."""
    torch.manual_seed(0)
    path = tmp_path / "Best_VAE.pth"
    save_checkpoint(path, VarAutoencoder(16, 12, 8))
    return path


def test_pixels_are_rounded_and_clipped(tmp_path):
    levels = torch.tensor([-0.1, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 1.1])
    images = levels.view(1, 1, 1, 6).expand(1, 3, 2, 6)
    save_images(tmp_path / "x.npy", [images], 1)
    found = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert found.dtype == np.uint8 and found.shape == (1, 2, 6, 3)
    assert (found[0] == np.array([0, 0, 0, 1, 255, 255])[:, None]).all()


def test_batches_follow_each_other(tmp_path):
    """Height, width and channels stand where they belong, image after image."""
    images = torch.arange(5 * 3 * 2 * 4).view(5, 3, 2, 4) / 255
    save_images(tmp_path / "x.npy", images.split(2), 5)
    found = np.load(tmp_path / "x.npy")
    assert (found == np.arange(120).reshape(5, 3, 2, 4).transpose(0, 2, 3, 1)).all()


def test_one_batch_is_held_at_a_time(tmp_path):
    """The batch before last is gone when the next is asked for."""
    seen = []

    def batches():
        for _ in range(6):
            assert [ref() is None for ref in seen[:-1]] == [True] * len(seen[:-1])
            batch = torch.zeros(4, 3, 2, 2)
            seen.append(weakref.ref(batch))
            yield batch

    save_images(tmp_path / "x.npy", batches(), 24)
    assert len(seen) == 6


@pytest.mark.parametrize(
    "fault, raised, words",
    [
        (OSError(28, "No space left on device"), UserError, "No space .* --save"),
        (RuntimeError("no memory"), RuntimeError, "no memory"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
def test_a_fault_leaves_the_old_file(tmp_path, fault, raised, words):
    """P1: the array from before, whole, and nothing beside it."""
    path = tmp_path / "x.npy"
    save_images(path, [torch.ones(1, 3, 2, 2)], 1)

    def batches():
        yield torch.zeros(1, 3, 2, 2)
        raise fault

    with pytest.raises(raised, match=words):
        save_images(path, batches(), 2)
    assert np.load(path).min() == 255 and list(tmp_path.iterdir()) == [path]


def test_the_command_saves_any_number_and_draws_nothing(tmp_path, weights):
    """600 images in three batches: the decoder's own, in order."""
    out = tmp_path / "out"
    random_generation.main(
        ["--weights", str(weights), "--count", "600", "--seed", "3"]
        + ["--save", str(out / "x.npy"), "--out", str(out)]
    )
    torch.manual_seed(3)
    model = load_model("VAE", weights)[0]  # draws its initial weights first
    with torch.no_grad():
        expected = torch.cat(
            [model.decoder(torch.randn(size, 16)) for size in (256, 256, 88)]
        )
    found = np.load(out / "x.npy")
    assert found.shape == (600, 8, 12, 3) and found.dtype == np.uint8
    assert (found == (expected * 255).round().byte().permute(0, 2, 3, 1).numpy()).all()
    assert [path.name for path in out.iterdir()] == ["x.npy"]


def test_a_folder_in_the_way(tmp_path, weights):
    """P25: exit 1 and one line."""
    result = command("random_generation.py", "--weights", weights, "--save", tmp_path)
    line = refused(result, "random_generation.py", f"{tmp_path} is a folder")
    assert result.err == line + "\n"
