"""The figures of single estimates: known levels, wrong levels, pure noise."""

import math

import pytest
import torch

from tests.helpers.diffusion import gaussian, ideal, ideal_for, save_small, small
from tests.helpers.project import write_photos
from tools.visualize import __main__ as command
from tools.visualize import estimates
from tools.visualize.diffusion import FigureContext
from utils.registry import load_model


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("estimates") / "photos", 12)


@pytest.fixture
def context(photos, tmp_path):
    """A FigureContext of a small model and drawn photos."""
    weights, where = save_small(tmp_path / "w.pkl"), ["--data", str(photos)]
    args = command.parse(["--model", "diffusion", "--out", str(tmp_path), *where])
    return FigureContext(args, *load_model("diffusion", weights))


def gaussian_images(count=200):
    """Return images in [0, 1] units that `gaussian` estimates ideally."""
    return (0.5 * torch.randn(count, 3, 8, 8) + 1) / 2


def test_psnr_of_known_errors():
    """An error of 0.1 everywhere is 20 dB; noise of a level has a closed form."""
    images = torch.full((2, 3, 8, 8), 0.5)
    assert estimates.psnr(images + 0.1, images) == pytest.approx(20, abs=1e-4)
    assert estimates.psnr(images, images) == 120
    torch.manual_seed(0)
    for sigma in estimates.LEVELS:
        x = estimates.add_noise(images.repeat(50, 1, 1, 1), sigma)
        found = estimates.psnr((x + 1) / 2, 0.5)
        assert found == pytest.approx(20 * math.log10(2 / sigma), abs=0.2)


def test_a_visible_state_has_the_variance_of_photos_and_noise():
    """Scaled by 1 / sqrt(1 + sigma^2), as the states of the sampler."""
    torch.manual_seed(0)
    x = torch.randn(100, 3, 8, 8) * math.sqrt(1 + 4**2)
    assert (2 * estimates.visible(x, 4) - 1).std().item() == pytest.approx(1, abs=0.02)


def test_the_right_level_gives_the_best_estimate():
    """By the ideal denoiser of Gaussian images each curve is highest at its level."""
    torch.manual_seed(0)
    model = ideal(small(), gaussian)
    curves = estimates.psnr_curves(model, gaussian_images(), estimates.CURVE)
    for sigma, curve in zip(estimates.LEVELS, curves, strict=True):
        assert estimates.CURVE[curve.index(max(curve))] == sigma
        # Its error there: 1 / (1 / variance + 1 / sigma^2), halved by the units.
        error = 1 / (1 / 0.25 + 1 / sigma**2) / 4
        assert max(curve) == pytest.approx(-10 * math.log10(error), abs=0.2)


def test_one_evaluation_of_noise_gives_the_mean_photo():
    """By the ideal denoiser of a few photos, at a high level."""
    torch.manual_seed(0)
    images = torch.rand(5, 3, 8, 8)
    model = ideal_for(small(), 2 * images - 1)
    found = estimates.estimate(model, 1e4 * torch.randn(4, 3, 8, 8), 1e4)
    torch.testing.assert_close(
        found, images.mean(0).expand_as(found), atol=5e-3, rtol=0
    )


def test_the_mean_photo_is_of_training_photos_of_one_species(context):
    """By the folder's names; and of their mirror images where those were trained on."""
    training, _ = context.sides
    images = training.all_images()[training.labels == 2]
    mean = estimates.mean_photo(context, "calendula")
    torch.testing.assert_close(mean, images.mean(dim=0, keepdim=True))
    context.metadata["settings"]["hflip"] = True
    mean = estimates.mean_photo(context)
    torch.testing.assert_close(mean, mean.flip(-1))


def test_a_walk_ends_at_its_last_estimate(context):
    """States and estimates alternate; at level 0 they are the same image."""
    torch.manual_seed(0)
    heads, words, columns = estimates.walk(context)
    assert heads[0] == "level" and heads[1] == "80" and heads[-1] == "0"
    assert len(heads) == len(columns) + 1 and words[:2] == ["astilbe", "- estimate"]
    states, found = columns[-1][::2], columns[-1][1::2]
    assert len(words) == len(columns[0]) == 6 and torch.equal(states, found)
    assert not torch.allclose(columns[0][::2], columns[0][1::2], atol=0.1)


def test_a_species_without_photos_has_no_row(context):
    """The figure of one step is saved without it."""
    context.wanted = ["calendula", "rose"]
    estimates.one_step(context)
    assert context.path("one_step").is_file()
