"""Photos filled in, drawn anew and mixed, by ideal denoisers of a few photos."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.diffusion import ideal_for, small
from utils.diffusion.editing import RESAMPLINGS, inpaint, noise_slerp, sdedit
from utils.diffusion.samplers import SAMPLERS
from utils.diffusion.sampling import SIGMA_MAX, SamplerConfig, sample, sigmas_for

HOW = SamplerConfig(steps=12)
PHOTOS = torch.tensor(  # two of four pixels, in [-1, 1]
    [[0.8, -0.4, -0.6, 0.2], [-0.7, 0.5, 0.3, 0.9]]
).view(2, 1, 1, 4)
LEFT = torch.tensor([True, True, False, False]).view(1, 1, 1, 4)


@pytest.fixture(scope="module")
def model():
    return ideal_for(small(img_channels=1), PHOTOS)


def watched(seen):
    """A model that estimates 0, and notes the level and the images that it is given."""

    def denoise(x, sigma, labels):
        seen.append((sigma[0].item(), x))
        return torch.zeros_like(x)

    return SimpleNamespace(denoise=denoise, guide=None)


def shown(photos):
    """[-1, 1] -> [0, 1]."""
    return (photos + 1) / 2


@pytest.mark.parametrize("sampler", ["dpm++3m", "ddpm"])
def test_the_rest_of_the_photo_that_fits_is_filled_in(model, sampler):
    """Half of the pixels tell which of two photos it is; they are kept to the bit."""
    torch.manual_seed(0)
    photos = shown(PHOTOS).repeat(20, 1, 1, 1)
    torn = torch.where(LEFT, photos, torch.rand_like(photos))
    result = inpaint(model, torn, LEFT, replace(HOW, sampler=sampler))
    assert torch.equal(result[..., :2], photos[..., :2])
    torch.testing.assert_close(result, photos, atol=0.02, rtol=0)


def test_where_nothing_is_known_every_photo_is_drawn(model):
    torch.manual_seed(0)
    torn = shown(PHOTOS[:1]).repeat(60, 1, 1, 1)
    result = inpaint(model, torn, torch.zeros_like(LEFT), HOW)
    far = torch.cdist(result.flatten(1), shown(PHOTOS).flatten(1))
    nearest = far.min(dim=1)
    assert nearest.values.max() < 0.02
    assert nearest.indices.bincount().min() > 15


def test_known_pixels_have_the_noise_of_every_level():
    """And each step but the last is repeated: the same levels again, noised anew."""
    seen = []
    torch.manual_seed(0)
    inpaint(watched(seen), torch.full((5000, 1, 1, 1), 0.75), torch.tensor(True), HOW)
    sigmas = sigmas_for(None, HOW)[:-1]
    expected = [sigma for sigma in sigmas[:-1] for _ in range(RESAMPLINGS)]
    assert [sigma for sigma, _ in seen] == pytest.approx([*expected, sigmas[-1]])
    for sigma, x in seen:
        noise = x - 0.5
        assert noise.std().item() == pytest.approx(sigma, rel=0.05)
        assert abs(noise.mean().item()) < 5 * sigma / 5000**0.5
    for (_, one), (_, other) in zip(seen[:3], seen[1:4], strict=True):
        assert not torch.equal(one, other)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_strength_keeps_the_photo_or_ignores_it(model, sampler):
    """0 returns it, whatever it is; 1 is the sample of the noise, whatever it is."""
    torch.manual_seed(0)
    images, noise = torch.rand(30, 1, 1, 4), torch.randn(30, 1, 1, 4)
    config = replace(HOW, sampler=sampler)
    same = sdedit(model, images, 0.0, noise, config)
    torch.testing.assert_close(same, images, atol=1e-6, rtol=0)
    torch.manual_seed(1)
    new = sdedit(model, images, 1.0, noise, config)
    torch.manual_seed(1)
    assert torch.equal(new, sample(model, noise, config)[0])


def test_a_photo_in_little_noise_stays_what_it_is(model):
    """Of two photos the one that it is like comes back."""
    torch.manual_seed(0)
    photos = shown(PHOTOS).repeat(20, 1, 1, 1)
    blurred = photos + 0.05 * torch.randn_like(photos)
    result = sdedit(model, blurred, 0.1, torch.randn_like(photos), HOW)
    torch.testing.assert_close(result, photos, atol=0.02, rtol=0)


@pytest.mark.parametrize("strength", [0.005, 0.3, 0.8, 0.99])
def test_the_sampler_sets_in_at_the_strength(strength):
    """At (1 - s) * image + s * noise, or the highest level; levels fall from there."""
    seen = []
    image, noise = torch.tensor(0.9).view(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    sdedit(watched(seen), image, strength, noise, HOW)
    sigma, x = seen[0]
    if strength < 0.97:
        mixed = (1 - strength) * 0.8 + strength
        assert (x / (1 + sigma)).item() == pytest.approx(mixed, rel=1e-5)
    else:
        assert sigma == pytest.approx(SIGMA_MAX)
    fallen = [now for now, _ in seen]
    assert fallen == sorted(set(fallen), reverse=True)


def test_the_ends_of_an_arc_are_its_noises(model):
    """So that the images at its ends are those of two seeds; all are about N(0, 1)."""
    torch.manual_seed(0)
    starts, ends = torch.randn(2, 3, 1, 8, 8).unbind()
    trajectories = noise_slerp(starts, ends, 7)
    assert trajectories.shape == (3, 7, 1, 8, 8)
    torch.testing.assert_close(trajectories[:, 0], starts)
    torch.testing.assert_close(trajectories[:, -1], ends)
    assert trajectories.std(dim=(2, 3, 4)).sub(1).abs().max() < 0.25
    small_ways = noise_slerp(starts[..., :1, :4], ends[..., :1, :4], 7)
    images = sample(model, small_ways.flatten(0, 1), HOW)[0].unflatten(0, (3, 7))
    for place, noise in ((0, starts), (-1, ends)):
        alone, _ = sample(model, noise[..., :1, :4], HOW)
        torch.testing.assert_close(images[:, place], alone, atol=1e-4, rtol=0)
