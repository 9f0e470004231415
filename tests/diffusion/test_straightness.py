"""How straight ways are, where they are known in closed form."""

import pytest
import torch

from tests.helpers.diffusion import knowing, small
from utils.diffusion.rectified_flow import (
    deviation_from_straight,
    straightness,
    trajectories,
)
from utils.diffusion.sampling import CFGDenoiser, SamplerConfig

SPREAD = 0.3  # standard deviation of the Gaussian below


def gaussian(x, sigma):
    """The ideal denoiser of N(0, SPREAD^2)."""
    return x * SPREAD**2 / (SPREAD**2 + sigma**2)


def test_ways_to_a_single_photo_are_straight():
    """Each velocity is the chord from noise to photo, and the end the photo."""
    torch.manual_seed(0)
    photo, noise = torch.rand(1, 3, 4, 4), torch.randn(5, 3, 4, 4)
    found = trajectories(lambda x, sigma: photo.expand_as(x), noise, steps=20)
    assert found.points.shape == found.velocities.shape == (22, 5, 3, 4, 4)
    assert straightness(found) < 1e-9
    torch.testing.assert_close(found.points[-1], photo.expand_as(noise))
    time = found.times.view(-1, 1, 1, 1, 1)
    line = (1 - time) * photo + time * found.points[0]
    torch.testing.assert_close(found.points, line, atol=1e-4, rtol=0)


def test_ways_to_two_photos_bend():
    photos = torch.tensor([[0.9, 0.1], [-0.8, 0.2]]).view(2, 1, 1, 2)
    model = knowing(small(img_channels=1), photos)
    torch.manual_seed(0)
    noise = torch.randn(200, 1, 1, 2)
    denoiser = CFGDenoiser(model, SamplerConfig())
    found = trajectories(denoiser, noise)
    assert denoiser.nfe == 64
    assert straightness(found) > 0.05
    far = torch.cdist(found.points[-1].flatten(1), photos.flatten(1)).min(dim=1)
    assert far.values.quantile(0.95) < 0.05


def test_ways_to_a_gaussian_are_as_by_hand():
    """z_t = g(t) n with g^2 = (SPREAD (1 - t))^2 + t^2, and dz / dt = g'(t) n.

    So S is the mean of n^2 times the integral of (g(1) - g(0) - g')^2.
    """
    torch.manual_seed(0)
    noise = torch.randn(300, 1, 2, 2).double()
    found = trajectories(gaussian, noise, steps=200)
    time = found.times.double()
    size = ((SPREAD * (1 - time)) ** 2 + time**2).sqrt()
    expected = size.view(-1, 1, 1, 1, 1) * noise
    torch.testing.assert_close(found.points, expected, atol=5e-3, rtol=0)
    fine = torch.linspace(0, 1, 100_001).double()
    size = ((SPREAD * (1 - fine)) ** 2 + fine**2).sqrt()
    slope = (fine - SPREAD**2 * (1 - fine)) / size
    curve = (1 - SPREAD - slope) ** 2 * noise.square().mean()
    whole = torch.trapezoid(curve, fine).item()
    assert straightness(found) == pytest.approx(whole, rel=0.02)
    assert deviation_from_straight(found)[100].item() == pytest.approx(
        torch.lerp(
            *curve[[int(1e5 * time[100]), int(1e5 * time[100]) + 1]], 0.5
        ).item(),
        rel=0.05,
    )
