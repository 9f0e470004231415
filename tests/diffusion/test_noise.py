"""Noise levels and what the network is asked for: one line from each to each."""

import pytest
import torch

from tests.helpers.diffusion import small
from utils.diffusion.denoiser import (
    DENSITIES,
    OBJECTIVES,
    preconditioning,
    sigma_quantile,
    stratified_uniform,
    training_target,
)

KIT = torch.logspace(-2, 2, 300)  # levels of a schedule, rising


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 1e3])
def test_velocities_are_derivatives_of_their_paths(sigma):
    """v by the angle on the circle, flow by the time on the straight line."""
    x_0, noise = torch.tensor(0.7).double(), torch.tensor(-1.3).double()
    sigma = torch.tensor(sigma).double()
    angle = torch.atan(sigma).requires_grad_()
    circle = angle.cos() * x_0 + angle.sin() * noise
    (slope,) = torch.autograd.grad(circle, angle)
    torch.testing.assert_close(OBJECTIVES["v"].target(x_0, noise, sigma), slope)
    time = (sigma / (1 + sigma)).requires_grad_()
    line = (1 - time) * x_0 + time * noise
    (slope,) = torch.autograd.grad(line, time)
    torch.testing.assert_close(OBJECTIVES["flow"].target(x_0, noise, sigma), slope)


def test_stratified_numbers_fill_every_part():
    shares = stratified_uniform(50)
    assert ((shares * 50).floor() == torch.arange(50)).all()


@pytest.mark.parametrize("density", DENSITIES)
def test_every_share_has_a_finite_level(density):
    """Also 0 and 1, which a random number in float32 can be."""
    sigmas = sigma_quantile(density, torch.tensor([0.0, 0.3, 1.0]), KIT)
    assert sigmas.isfinite().all() and (sigmas > 0).all() and (sigmas.diff() > 0).all()


def test_bucket_means_by_hand():
    """A level on a bound belongs below it; a bucket without any has no mean."""
    sigmas = torch.tensor([0.1, 0.25, 0.3, 2.0, 2.1, 5.0, 900.0])
    details = {"sigma": sigmas, "error": torch.arange(7.0)}
    assert small().summarize_details(details) == {
        "error_to_0.25": 0.5,
        "error_to_0.5": 2.0,
        "error_to_1": None,
        "error_to_2": 3.0,
        "error_to_4": 4.0,
        "error_above_4": 5.5,
    }


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="one of .*'eps'.*, got 'score'"):
        preconditioning("score", torch.ones(1))
    with pytest.raises(ValueError, match="one of .*'eps'.*, got 'score'"):
        training_target("score", *torch.ones(3))
    with pytest.raises(ValueError, match="one of .*'kit'.*, got 'linear'"):
        sigma_quantile("linear", torch.ones(1), KIT)
