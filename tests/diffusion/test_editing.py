"""Photos filled in, drawn anew and mixed, by ideal denoisers of a few photos."""

from types import SimpleNamespace

import pytest
import torch

from tests.helpers.diffusion import knowing, small
from utils.diffusion.editing import ROUNDS, arcs, filled, redrawn
from utils.diffusion.samplers import SAMPLERS
from utils.diffusion.sampling import HIGHEST, Sampling, levels_for, sampled

HOW = Sampling(steps=12)
PHOTOS = torch.tensor(  # two of four pixels, in [-1, 1]
    [[0.8, -0.4, -0.6, 0.2], [-0.7, 0.5, 0.3, 0.9]]
).view(2, 1, 1, 4)
LEFT = torch.tensor([True, True, False, False]).view(1, 1, 1, 4)


@pytest.fixture(scope="module")
def model():
    return knowing(small(img_channels=1), PHOTOS)


def shown(photos):
    """[-1, 1] -> [0, 1]."""
    return (photos + 1) / 2


@pytest.mark.parametrize("sampler", ["dpm++3m", "ddpm"])
def test_the_rest_of_the_photo_that_fits_is_filled_in(model, sampler):
    """Half of the pixels tell which of two photos it is; they are kept to the bit."""
    torch.manual_seed(0)
    photos = shown(PHOTOS).repeat(20, 1, 1, 1)
    torn = torch.where(LEFT, photos, torch.rand_like(photos))
    result = filled(model, torn, LEFT, HOW._replace(sampler=sampler))
    assert torch.equal(result[..., :2], photos[..., :2])
    torch.testing.assert_close(result, photos, atol=0.02, rtol=0)


def test_where_nothing_is_known_every_photo_is_drawn(model):
    torch.manual_seed(0)
    torn = shown(PHOTOS[:1]).repeat(60, 1, 1, 1)
    result = filled(model, torn, torch.zeros_like(LEFT), HOW)
    far = torch.cdist(result.flatten(1), shown(PHOTOS).flatten(1))
    nearest = far.min(dim=1)
    assert nearest.values.max() < 0.02
    assert nearest.indices.bincount().min() > 15


def test_known_pixels_have_the_noise_of_every_level():
    """And each step but the last is repeated: the same levels again, noised anew."""
    seen = []

    def watched(x, level, species):
        seen.append((level[0].item(), (x - 0.5).flatten()))
        return torch.zeros_like(x)

    torch.manual_seed(0)
    stand_in = SimpleNamespace(denoise=watched)
    filled(stand_in, torch.full((5000, 1, 1, 1), 0.75), torch.tensor(True), HOW)
    levels = levels_for(None, HOW)[:-1]
    expected = [level for level in levels[:-1] for _ in range(ROUNDS)]
    assert [level for level, _ in seen] == pytest.approx([*expected, levels[-1]])
    for level, noise in seen:
        assert noise.std().item() == pytest.approx(level, rel=0.05)
        assert abs(noise.mean().item()) < 5 * level / 5000**0.5
    for (_, one), (_, other) in zip(seen[:3], seen[1:4], strict=True):
        assert not torch.equal(one, other)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_strength_keeps_the_photo_or_ignores_it(model, sampler):
    """0 returns it, whatever it is; 1 is the sample of the noise, whatever it is."""
    torch.manual_seed(0)
    images, noise = torch.rand(30, 1, 1, 4), torch.randn(30, 1, 1, 4)
    how = HOW._replace(sampler=sampler)
    same = redrawn(model, images, 0.0, noise, how)
    torch.testing.assert_close(same, images, atol=1e-6, rtol=0)
    torch.manual_seed(1)
    new = redrawn(model, images, 1.0, noise, how)
    torch.manual_seed(1)
    assert torch.equal(new, sampled(model, noise, how)[0])


def test_a_photo_in_little_noise_stays_what_it_is(model):
    """Of two photos the one that it is like comes back."""
    torch.manual_seed(0)
    photos = shown(PHOTOS).repeat(20, 1, 1, 1)
    blurred = photos + 0.05 * torch.randn_like(photos)
    result = redrawn(model, blurred, 0.1, torch.randn_like(photos), HOW)
    torch.testing.assert_close(result, photos, atol=0.02, rtol=0)


@pytest.mark.parametrize("strength", [0.005, 0.3, 0.8, 0.99])
def test_the_sampler_sets_in_at_the_strength(strength):
    """At (1 - s) * image + s * noise, or the highest level; levels fall from there."""
    seen = []

    def watched(x, level, species):
        seen.append((level[0].item(), x))
        return torch.zeros_like(x)

    image, noise = torch.tensor(0.9).view(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    redrawn(SimpleNamespace(denoise=watched), image, strength, noise, HOW)
    level, x = seen[0]
    if strength < 0.97:
        mixed = (1 - strength) * 0.8 + strength
        assert (x / (1 + level)).item() == pytest.approx(mixed, rel=1e-5)
    else:
        assert level == pytest.approx(HIGHEST)
    fallen = [now for now, _ in seen]
    assert fallen == sorted(set(fallen), reverse=True)


def test_the_ends_of_an_arc_are_its_noises(model):
    """So that the images at its ends are those of two seeds; all are about N(0, 1)."""
    torch.manual_seed(0)
    starts, ends = torch.randn(2, 3, 1, 8, 8).unbind()
    ways = arcs(starts, ends, 7)
    assert ways.shape == (3, 7, 1, 8, 8)
    torch.testing.assert_close(ways[:, 0], starts)
    torch.testing.assert_close(ways[:, -1], ends)
    assert ways.std(dim=(2, 3, 4)).sub(1).abs().max() < 0.25
    small_ways = arcs(starts[..., :1, :4], ends[..., :1, :4], 7)
    images = sampled(model, small_ways.flatten(0, 1), HOW)[0].unflatten(0, (3, 7))
    for place, noise in ((0, starts), (-1, ends)):
        alone, _ = sampled(model, noise[..., :1, :4], HOW)
        torch.testing.assert_close(images[:, place], alone, atol=1e-4, rtol=0)
