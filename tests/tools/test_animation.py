"""Films: what their frames show, and the file they end in."""

import math

import pytest
import torch
from PIL import Image, ImageSequence

from tests.helpers.diffusion import knowing, small
from tools.visualize.animation import (
    FRAMES,
    LONG,
    animation,
    evenly_spaced,
    noised_states,
    save_animation,
)
from utils.diffusion.sampling import SamplerConfig


def test_places_are_spread_from_noise_to_image():
    """Evenly in the angle: levels of 60, 45 and 30 degrees; each place once."""
    angles = torch.linspace(80, 0, 81).deg2rad()
    assert evenly_spaced(angles.tan().tolist(), 5) == [0, 20, 40, 60, 80]
    assert evenly_spaced([30.0, 0.0], 4) == [0, 1]


def test_drowned_photos_follow_the_forward_process():
    """Mean and variance as by equation 4 of Ho et al. 2020, from a growing noise."""
    torch.manual_seed(0)
    levels = [0.5, 1.0, 30.0]
    photos = torch.full((40_000, 1, 1, 1), 0.6)
    first, *states = noised_states(photos, levels)
    assert torch.equal(first, photos)
    noises = []
    for level, x in zip(levels, states, strict=True):
        proportion = 1 / (1 + level**2)  # of the photo's variance, alphas_bar
        assert x.mean().item() == pytest.approx(0.6 * math.sqrt(proportion), abs=0.025)
        assert x.var().item() == pytest.approx(1 - proportion, rel=0.03)
        noises.append((x * math.sqrt(1 + level**2) - photos).flatten())
    together = (noises[0] * noises[1]).mean().item()
    assert together == pytest.approx(levels[0] ** 2, rel=0.1)


@pytest.mark.parametrize("config", [SamplerConfig(steps=4), SamplerConfig("ddpm", 50)])
def test_a_film_leads_from_photos_through_noise_to_new_images(config):
    """In a world of one photo, the new images are that photo."""
    torch.manual_seed(0)
    known = torch.linspace(-0.9, 0.9, 16).view(1, 1, 4, 4)
    model, photos = knowing(small(img_channels=1), known), torch.rand(300, 1, 4, 4)
    frames = animation(model, photos, config)
    assert len(frames) == 2 * FRAMES
    torch.testing.assert_close(frames[0], photos)
    new = ((known + 1) / 2).expand_as(photos)
    torch.testing.assert_close(frames[-1], new, atol=1e-4, rtol=0)
    for frame in frames[FRAMES - 1 : FRAMES + 1]:  # the drowned, and after a step back
        noise = frame.flatten()
        assert noise.mean().item() == pytest.approx(0.5, abs=0.02)
        for image in (photos, new):
            both = torch.stack([noise, image.flatten()])
            assert abs(torch.corrcoef(both)[0, 1].item()) < 0.08
    assert all(frame.min() >= 0 and frame.max() <= 1 for frame in frames)


def test_a_film_is_a_gif_of_square_pixels(tmp_path):
    """All frames in their order, of flat colours to the bit, 4 images a row."""
    colours = torch.tensor([[1.0, 0, 0], [0, 0.4, 0.2], [0, 0, 1], [0.2, 0.2, 0.2]])
    frames = [c.view(1, 3, 1, 1).expand(8, 3, 24, 24).clone() for c in colours]
    save_animation(frames, tmp_path / "x.gif", columns=4)
    with Image.open(tmp_path / "x.gif") as picture:
        assert picture.n_frames == 4 and picture.info["duration"] == LONG
        assert picture.size == (5 * 101, 5 * 51)
        shown = [frame.convert("RGB") for frame in ImageSequence.Iterator(picture)]
    for frame, colour in zip(shown, colours, strict=True):
        assert frame.getpixel((60, 60)) == tuple((255 * colour).round().int().tolist())
        assert frame.getpixel((0, 0)) == (255, 255, 255)


def test_a_film_of_noise_is_small(tmp_path):
    """The worst there is for a GIF: below 2 MB."""
    torch.manual_seed(0)
    frames = [torch.rand(8, 3, 24, 24) for _ in range(2 * FRAMES)]
    save_animation(frames, tmp_path / "x.gif", columns=4)
    assert (tmp_path / "x.gif").stat().st_size < 2e6
    with Image.open(tmp_path / "x.gif") as picture:
        assert picture.n_frames == 2 * FRAMES
