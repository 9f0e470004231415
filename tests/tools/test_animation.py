"""The animation of diffusion: what its frames show, and the GIF file."""

import math

import pytest
import torch
from PIL import Image, ImageSequence

from tests.helpers.diffusion import ideal_for, small
from tools.visualize.animation import (
    FRAMES,
    LONG,
    animation,
    evenly_spaced,
    noised_states,
    save_animation,
)
from utils.config import SamplerConfig
from utils.figures import TITLE


def test_indices_are_evenly_spaced_in_the_angle():
    """Noise levels whose angles are 80, 60, 40, 20 and 0 degrees; each index once."""
    angles = torch.linspace(80, 0, 81).deg2rad()
    assert evenly_spaced(angles.tan().tolist(), 5) == [0, 20, 40, 60, 80]
    # Fewer noise levels than asked for.
    assert evenly_spaced([30.0, 0.0], 4) == [0, 1]


def test_noised_photos_follow_the_forward_process():
    """Mean and variance are those of equation 4 of Ho et al. 2020."""
    torch.manual_seed(0)
    sigmas = [0.5, 1.0, 30.0]
    photos = torch.full((40_000, 1, 1, 1), 0.6)
    first, *states = noised_states(photos, sigmas)
    assert torch.equal(first, photos)
    noises = []
    for sigma, x in zip(sigmas, states, strict=True):
        # alphas_bar, the proportion of the photo's variance.
        proportion = 1 / (1 + sigma**2)
        assert x.mean().item() == pytest.approx(0.6 * math.sqrt(proportion), abs=0.025)
        assert x.var().item() == pytest.approx(1 - proportion, rel=0.03)
        noises.append((x * math.sqrt(1 + sigma**2) - photos).flatten())
    # A state contains the noise of the state before: cov(n_1, n_2) = sigma_1^2.
    covariance = (noises[0] * noises[1]).mean().item()
    assert covariance == pytest.approx(sigmas[0] ** 2, rel=0.1)


@pytest.mark.parametrize("config", [SamplerConfig(steps=4), SamplerConfig("ddpm", 50)])
def test_an_animation_leads_from_photos_through_noise_to_new_images(config):
    """If the model knows one photo only, every new image is that photo."""
    torch.manual_seed(0)
    known = torch.linspace(-0.9, 0.9, 16).view(1, 1, 4, 4)
    model, photos = ideal_for(small(img_channels=1), known), torch.rand(300, 1, 4, 4)
    frames, captions = animation(model, photos, config)
    assert len(frames) == len(captions) == 2 * FRAMES
    assert captions[0] == "photos" and captions[-1] == "new images"
    # Captions name the noise level, which rises and falls.
    halves = captions[1:FRAMES], captions[FRAMES:-1]
    for half, verb in zip(halves, ("added", "removed"), strict=True):
        assert all(words.startswith(f"noise is {verb}: sigma ") for words in half)
        levels = [float(words.split()[-1]) for words in half]
        assert levels == sorted(levels, reverse=verb == "removed")
        assert max(levels) > 5 and min(levels) < 0.2
    assert all(frame.min() >= 0 and frame.max() <= 1 for frame in frames)
    # The first frame shows the photos, and the last the new images.
    torch.testing.assert_close(frames[0], photos)
    new = ((known + 1) / 2).expand_as(photos)
    torch.testing.assert_close(frames[-1], new, atol=1e-4, rtol=0)
    # The last frame of the first half and the first of the second half are noise.
    for frame in frames[FRAMES - 1 : FRAMES + 1]:
        noise = frame.flatten()
        assert noise.mean().item() == pytest.approx(0.5, abs=0.02)
        for image in (photos, new):
            both = torch.stack([noise, image.flatten()])
            assert abs(torch.corrcoef(both)[0, 1].item()) < 0.08


def test_the_gif_has_every_frame_with_exact_colours(tmp_path):
    """4 images per row, enlarged 5 times, white between them."""
    colours = torch.tensor([[1.0, 0, 0], [0, 0.4, 0.2], [0, 0, 1], [0.2, 0.2, 0.2]])
    frames = [c.view(1, 3, 1, 1).expand(8, 3, 24, 24).clone() for c in colours]
    save_animation(frames, list("abcd"), tmp_path / "x.gif", columns=4)
    with Image.open(tmp_path / "x.gif") as picture:
        assert picture.n_frames == 4 and picture.info["duration"] == LONG
        assert picture.size == (5 * 101, 5 * 51 + TITLE)
        shown = [frame.convert("RGB") for frame in ImageSequence.Iterator(picture)]
    # A palette of 256 colours holds every colour of such a frame.
    for frame, colour in zip(shown, colours, strict=True):
        inside, corner = (60, 60 + TITLE), (0, TITLE)
        assert frame.getpixel(inside) == tuple((255 * colour).round().int().tolist())
        assert frame.getpixel(corner) == (255, 255, 255)
        # The caption is black on white.
        colours = frame.crop((0, 0, 505, TITLE)).getcolors()
        assert {colour for _, colour in colours} == {(0, 0, 0), (255, 255, 255)}
    # Another caption, another picture of it.
    captions = {frame.crop((0, 0, 505, TITLE)).tobytes() for frame in shown}
    assert len(captions) == 4


def test_a_gif_of_noise_is_small(tmp_path):
    """Below 2 MB, although noise compresses worst."""
    torch.manual_seed(0)
    frames = [torch.rand(8, 3, 24, 24) for _ in range(2 * FRAMES)]  # as an animation
    captions = [f"noise is removed: sigma {i / 9:.2g}" for i in range(2 * FRAMES)]
    save_animation(frames, captions, tmp_path / "x.gif", columns=4)
    assert (tmp_path / "x.gif").stat().st_size < 2e6
    # Frames that are alike would be merged; no two of these are.
    with Image.open(tmp_path / "x.gif") as picture:
        assert picture.n_frames == 2 * FRAMES
