"""The straightness of trajectories that are known in closed form."""

import pytest
import torch

from tests.helpers.diffusion import VARIANCE, gaussian
from utils.diffusion.rectified_flow import (
    deviation_from_straight,
    straightness,
    trajectories,
)

STD = VARIANCE**0.5


def test_trajectories_to_one_photo_are_straight():
    """Each velocity is the difference of noise and photo, and the end is the photo."""
    torch.manual_seed(0)
    photo, noise = torch.rand(1, 3, 4, 4), torch.randn(5, 3, 4, 4)
    found = trajectories(lambda x, sigma: photo.expand_as(x), noise, steps=20)
    # T = steps + 2: both ends are added.
    assert found.points.shape == found.velocities.shape == (22, 5, 3, 4, 4)
    assert straightness(found) < 1e-9
    torch.testing.assert_close(found.points[-1], photo.expand_as(noise))
    # Points are where the straight line is at that time.
    time = found.times.view(-1, 1, 1, 1, 1)
    line = (1 - time) * photo + time * found.points[0]
    torch.testing.assert_close(found.points, line, atol=1e-4, rtol=0)


def test_trajectories_to_a_gaussian_have_the_known_straightness():
    """z_t = g(t) n with g^2 = (STD (1 - t))^2 + t^2, and dz / dt = g'(t) n.

    So S is the mean of n^2 times the integral of (g(1) - g(0) - g')^2.
    """
    torch.manual_seed(0)
    noise = torch.randn(300, 1, 2, 2).double()
    found = trajectories(gaussian, noise, steps=200)

    def g(time):
        return ((STD * (1 - time)) ** 2 + time**2).sqrt()

    def deviation(time):  # the integrand of S
        slope = (time - STD**2 * (1 - time)) / g(time)  # g'
        return (1 - STD - slope) ** 2 * noise.square().mean()

    # The points, then the deviation at one time, then its integral.
    time = found.times.double()
    expected = g(time).view(-1, 1, 1, 1, 1) * noise
    torch.testing.assert_close(found.points, expected, atol=5e-3, rtol=0)
    middle = deviation_from_straight(found)[100].item()
    assert middle == pytest.approx(deviation(time[100]).item(), rel=0.05)
    fine = torch.linspace(0, 1, 100_001).double()
    integral = torch.trapezoid(deviation(fine), fine).item()
    assert straightness(found) == pytest.approx(integral, rel=0.02)
